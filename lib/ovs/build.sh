#!/bin/bash
# Builds the parts of Open vSwitch that Weft links and the ovs-* programs,
# from the distribution's openvswitch-source package, unpatched, once.
#
# usage: build.sh DIR CFLAGS
#
# DIR/stamp records the source's version and the flags; a change of either
# rebuilds from scratch.  DIR/src is the source, DIR/build the build.
set -euo pipefail

dir=$1
cflags=$2
tarball=/usr/src/openvswitch/openvswitch.tar.gz
version=$(dpkg-query -W -f '${Version}' openvswitch-source)
dpdk=$(pkg-config --modversion libdpdk)
stamp="openvswitch-source $version; libdpdk $dpdk; $cflags"

[ -f "$dir/stamp" ] && [ "$(cat "$dir/stamp")" = "$stamp" ] && exit 0

say() { printf '  OVS   %s\n' "$*"; }
log=$dir/build.log
step() {
    say "$1"
    shift
    "$@" >>"$log" 2>&1 || {
        echo "Building Open vSwitch failed; the last lines of $log:" >&2
        tail -n 20 "$log" >&2
        exit 1
    }
}

rm -rf "$dir"
mkdir -p "$dir/src" "$dir/build"
dir=$(cd "$dir" && pwd)
log=$dir/build.log
step "unpack $version" tar xzf "$tarball" --strip-components=1 -C "$dir/src"
cd "$dir/build"
step configure ../src/configure --enable-ssl --disable-afxdp --disable-libcapng \
    --with-dpdk=shared CFLAGS="$cflags" PYTHON3=/usr/bin/python3

# Named targets skip BUILT_SOURCES, so those come first.
printf 'include Makefile\nweft-built-sources: $(BUILT_SOURCES)\n' >weft.mk
jobs=-j$(nproc)
step "generated sources" make -f weft.mk weft-built-sources
step libraries make "$jobs" lib/libopenvswitch.la lib/libopenvswitchavx512.la lib/libsflow.la \
    ofproto/libofproto.la ovsdb/libovsdb.la vswitchd/bridge.o vswitchd/system-stats.o
step programs make "$jobs" utilities/ovs-vsctl utilities/ovs-ofctl utilities/ovs-appctl \
    utilities/ovs-dpctl utilities/ovs-testcontroller ovsdb/ovsdb-server ovsdb/ovsdb-client \
    ovsdb/ovsdb-tool vswitchd/ovs-vswitchd vswitchd/vswitch.ovsschema

# What our compiler needs to see the same headers the same way.
sed -n 's/^OVS_CFLAGS = //p' Makefile | head -n 1 >"$dir/ovs-cflags"
echo "$stamp" >"$dir/stamp"
