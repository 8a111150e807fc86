#!/bin/bash
# The distribution's OVN, unpacked but not installed (installing it would start
# it): prints the folder.  Fetched once into build/stock/ovn.
#
# usage: stock_ovn.sh
set -euo pipefail
cd "$(dirname "$0")/.."
ovn=$PWD/build/stock/ovn

if [ ! -x "$ovn/usr/bin/ovn-northd" ]; then
    fresh=$(mktemp -d)
    trap 'rm -rf "$fresh"' EXIT
    (cd "$fresh" && apt-get -qq download ovn-central ovn-host ovn-common &&
        for deb in *.deb; do dpkg-deb -x "$deb" ovn; done) >&2
    for program in ovn-northd ovn-controller; do
        if ldd "$fresh/ovn/usr/bin/$program" | grep -q "not found"; then
            echo "$program needs libraries that are not installed:" >&2
            ldd "$fresh/ovn/usr/bin/$program" | grep "not found" >&2
            exit 1
        fi
    done
    mkdir -p "$(dirname "$ovn")"
    rm -rf "$ovn"
    mv "$fresh/ovn" "$ovn"
fi
echo "$ovn"
