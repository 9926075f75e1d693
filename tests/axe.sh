#!/bin/sh
# axe-core, which looks for what people with disabilities could not use. From npm, held against a hash.
set -eu
cd "$(dirname "$0")/.."
mkdir -p build/axe && cd build/axe
[ -f axe.min.js ] && exit 0
rm -f axe-core-*.tgz
npm pack --silent axe-core@4.14.1 >/dev/null
echo "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745  axe-core-4.14.1.tgz" | sha256sum --check --quiet
tar xzf axe-core-4.14.1.tgz --strip-components=1 package/axe.min.js
