#!/bin/sh
# The programs that the tests talk to: installs what is missing as root, else names it.
set -eu
missing=""
command -v sipp >/dev/null 2>&1 || missing="$missing sip-tester"
[ -f /usr/share/sip-tester/dtmf_2833_1.pcap ] || case "$missing" in *sip-tester*) ;; *) missing="$missing sip-tester" ;; esac
[ -d /usr/share/asterisk/sounds ] || missing="$missing asterisk-core-sounds-en-wav"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
  echo "the tests need these Debian packages:$missing" >&2
  exit 1
fi
