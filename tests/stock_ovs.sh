#!/bin/bash
# The distribution's own ovs-vswitchd, unpacked but not installed (installing it
# would start it): prints its path.  Fetched once into build/stock.
#
# usage: stock_ovs.sh
set -euo pipefail
cd "$(dirname "$0")/.."
vswitchd=$PWD/build/stock/ovs-vswitchd

if [ ! -x "$vswitchd" ]; then
    fresh=$(mktemp -d)
    trap 'rm -rf "$fresh"' EXIT
    (cd "$fresh" && apt-get -qq download openvswitch-switch && dpkg-deb -x openvswitch-switch_*.deb .) >&2
    install -D "$fresh/usr/lib/openvswitch-switch/ovs-vswitchd" "$vswitchd"
fi
echo "$vswitchd"
