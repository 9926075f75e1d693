#!/bin/sh
# What tests load into a browser, from npm, each held against a hash: axe-core, which looks for what people with
# disabilities could not use, and SIP.js, the other SIP library of browsers.
set -eu
cd "$(dirname "$0")/.."
packed() { # package, version, hash, folder, what of it
  [ -e "build/$4" ] && return 0
  mkdir -p "build/$4.new"
  (
    cd "build/$4.new"
    npm pack --silent "$1@$2" >/dev/null
    echo "$3  $1-$2.tgz" | sha256sum --check --quiet
    tar xzf "$1-$2.tgz" --strip-components=1 "package/$5"
  )
  rm "build/$4.new/$1-$2.tgz"
  mv "build/$4.new" "build/$4"
}
packed axe-core 4.14.1 e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745 axe axe.min.js
packed sip.js 0.21.2 abbf374bccf50fdd0f659e24dd70a83a0bad09553bd16fa4b6c94021053f66cb sipjs lib
