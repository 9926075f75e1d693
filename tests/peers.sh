#!/bin/sh
# The programs and recordings that tests and benchmarks use: installs what is missing as root, else names it.
set -eu
sounds=/usr/share/asterisk/sounds
missing=""
need() { [ -e "$1" ] || case "$missing " in *" $2 "*) ;; *) missing="$missing $2" ;; esac; }
need "$(command -v sipp || echo /nowhere)" sip-tester
need "$(command -v kamailio || ls /usr/sbin/kamailio 2>/dev/null || echo /nowhere)" kamailio
need "$(find /usr/lib -path '*kamailio/modules/websocket.so' 2>/dev/null | grep . || echo /nowhere)" kamailio-websocket-modules
need /usr/share/sip-tester/dtmf_2833_1.pcap sip-tester
need "$(command -v chromium || echo /nowhere)" chromium
need "$(command -v npm || echo /nowhere)" npm
need /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf fonts-dejavu-core
need $sounds/en_US_f_Allison asterisk-core-sounds-en-wav
need $sounds/es_MX_f_Allison asterisk-core-sounds-es-wav
need $sounds/fr_CA_f_June asterisk-core-sounds-fr-wav
need $sounds/it_IT_m_Carlo asterisk-core-sounds-it-wav
need $sounds/ru_RU_f_IvrvoiceRU asterisk-core-sounds-ru-wav
need /usr/share/asterisk/moh asterisk-moh-opsound-wav
need "$(command -v sox || echo /nowhere)" sox
need "$(command -v multimon-ng || echo /nowhere)" multimon-ng
[ -n "$(find /usr/lib -name 'libspandsp.so.2' 2>/dev/null | head -n 1)" ] || missing="$missing libspandsp2"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
  case "$missing" in *kamailio*) systemctl disable --now kamailio >/dev/null 2>&1 || true ;; esac # the tests run their own
else
  echo "the tests and benchmarks need these Debian packages:$missing" >&2
  exit 1
fi
