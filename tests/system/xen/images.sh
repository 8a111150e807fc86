#!/bin/bash
# Builds what the Xen hosts of check-xen boot, into build/xen:
#
#   xen           the hypervisor, from Debian's package
#   vmlinux       Debian's kernel, unpacked: for dom0 and guests
#   dom0.cpio     dom0's root: Xen's tools, busybox, iproute2, iperf3, socat,
#                 and in /guest the guests' kernel and guest.cpio.gz
#   weft.cpio     appended to it: the switch, weft-xapid and what it starts, weft, their
#                 libraries, the hotplug script, certificates for h1, h2 and an admin
#
# The first three are built anew when a package's version or a file of this
# folder changes, the last one whenever a program of build/bin did.  Nothing is
# installed: packages are downloaded into build/xen/debs and unpacked beside.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
out=$top/build/xen
work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Two runs at once build one after the other.
mkdir -p "$out/debs"
exec 9>"$out/lock"
flock 9
umask 022

xen_version=4.17
multiarch=/usr/lib/x86_64-linux-gnu

# --- what goes in ------------------------------------------------------------

# The packages to unpack, "NAME_VERSION_amd64.deb" as apt writes the files.
wanted_debs() {
    local kernel p version
    kernel=$(apt-cache depends --important linux-image-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    [ -n "$kernel" ] || return 1
    for p in "$kernel" xen-hypervisor-$xen_version-amd64 xen-utils-$xen_version \
        xen-utils-common xenstore-utils libyajl2; do
        version=$(apt-cache policy "$p" | sed -n 's/^ *Candidate: //p')
        [ -n "$version" ] && [ "$version" != "(none)" ] || return 1
        echo "$p=$version"
    done
}

fetch_debs() {
    local p missing=()
    for p in "$@"; do
        deb_of "$p" >/dev/null || missing+=("$p")
    done
    [ ${#missing[@]} -eq 0 ] && return
    echo "  GET   ${missing[*]}"
    (cd "$out/debs" && apt-get -qq -o APT::Sandbox::User=root download "${missing[@]}")
}

deb_of() { # NAME=VERSION: its file
    local f=$out/debs/${1%%=*}_${1#*=}_amd64.deb
    f=${f//:/%3a}
    [ -e "$f" ] || f=${f%_amd64.deb}_all.deb
    [ -e "$f" ] && echo "$f"
}

# The ELF image inside a bzImage: boot/header of the Linux boot protocol names
# the payload's offset (0x248) and length (0x24c) behind the setup sectors (0x1f1).
unpack_kernel() { # BZIMAGE
    local sectors offset length
    sectors=$(od -An -tu1 -j $((0x1f1)) -N 1 "$1")
    read -r offset length < <(od -An -tu4 -j $((0x248)) -N 8 "$1")
    head -c $(((sectors + 1) * 512 + offset + length)) "$1" | tail -c "$length" |
        xz --decompress --stdout --single-stream
}

# --- putting roots together ----------------------------------------------------

# put ROOT FILE...: copies programs of this machine, or of the unpacked
# packages, with the libraries they are linked to.
put() {
    local root=$1 f
    shift
    for f in "$@"; do
        install -D "$(real "$f")" "$root$f"
        put_libraries "$root" "$(real "$f")"
    done
}
put_libraries() { # ROOT PROGRAM
    local lib
    while read -r lib; do
        [ -e "$1${lib#"$unpacked"}" ] || install -D "$lib" "$1${lib#"$unpacked"}"
    done < <(LD_LIBRARY_PATH=$unpacked$multiarch ldd "$2" |
        awk '$3 ~ /^\// { print $3 } $1 ~ /^\/lib64/ { print $1 }')
}
real() { if [ -e "$unpacked$1" ]; then echo "$unpacked$1"; else echo "$1"; fi; }

put_modules() { # ROOT MODULE...
    local root=$1 m
    shift
    install -D -t "$root/lib/modules/$release" "$unpacked/lib/modules/$release"/modules.{builtin*,order}
    for m in "$@"; do
        modprobe -d "$unpacked" -S "$release" --show-depends "$m" | sed -n 's/^insmod //p'
    done | sort -u | while read -r m; do
        install -D "$m" "$root${m#"$unpacked"}"
    done
    depmod -b "$root" "$release"
}

# As in Debian, /bin and the like are links into /usr.
merged() { # ROOT
    local d
    mkdir -p "$1"/usr/{bin,sbin,lib,lib64}
    for d in bin sbin lib lib64; do ln -s "usr/$d" "$1/$d"; done
}

skeleton() { # ROOT
    local applet
    merged "$1"
    mkdir -p "$1"/{etc,proc,sys,dev,run,tmp,root,var/lib/xen,var/log/xen/console}
    ln -s /run "$1/var/run"
    ln -s /run/lock "$1/var/lock"
    cp -L "$(command -v busybox)" "$1/bin/busybox"
    for applet in $("$1/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$1/bin/$applet"
    done
    echo 'root::0:0:root:/root:/bin/sh' >"$1/etc/passwd"
    echo 'root:x:0:' >"$1/etc/group"
}

pack() { (cd "$1" && find . | LC_ALL=C sort | cpio --create --format=newc --quiet --owner=0:0); }

build_guest() {
    local root=$work/guest p
    skeleton "$root"
    put_modules "$root" xen-netfront
    put "$root" /usr/bin/iperf3 /usr/sbin/ethtool
    install "$here/guest/init" "$root/init"
    # The kernel runs these when it is asked to end; init is no real one.
    for p in poweroff reboot; do
        rm -f "$root"/{bin,sbin}/$p
        printf '#!/bin/sh\nexec /bin/busybox %s -f\n' $p >"$root/sbin/$p"
        chmod 755 "$root/sbin/$p"
    done
    pack "$root" | gzip -1 >"$work/guest.cpio.gz"
}

build_dom0() {
    local root=$work/dom0 xen=/usr/lib/xen-$xen_version/bin p
    skeleton "$root"
    for p in xl libxl-save-helper xenstored xenconsoled xen-init-dom0 lsevtchn; do
        put "$root" "$xen/$p"
        ln -s "$xen/$p" "$root/bin/$p"
    done
    put "$root" /usr/bin/xenstore /usr/bin/iperf3 /usr/bin/socat
    for p in read write rm list ls exists chmod watch; do
        ln -s /usr/bin/xenstore "$root/bin/xenstore-$p"
    done
    # glibc loads it when a thread is cancelled, as xl's are.
    put "$root" "$multiarch/libgcc_s.so.1"
    # In /sbin, and for /bin instead of busybox's.
    put "$root" /bin/bash /usr/bin/{ping,flock} /bin/ss /sbin/{ip,bridge,tc,ethtool}
    ln -sf bash "$root/bin/sh"
    rm -f "$root"/bin/{ip,tc,ethtool}
    cp -a "$unpacked/etc/xen" "$root/etc/"
    put_modules "$root" xen-privcmd xen-evtchn xen-gntdev xen-gntalloc xenfs \
        xen-netback bridge tun virtio_net virtio_pci
    install "$here/dom0/init" "$root/init"
    mkdir "$root/guest"
    cp "$work/guest.cpio.gz" "$work/vmlinux" "$root/guest/"
    pack "$root" >"$work/dom0.cpio"
}

build_base() { # KEY NAME=VERSION...
    local key=$1 p
    shift
    fetch_debs "$@"
    unpacked=$work/unpacked
    mkdir "$unpacked"
    for p in "$@"; do
        dpkg-deb --extract "$(deb_of "$p")" "$unpacked"
    done
    release=$(basename "$unpacked"/lib/modules/*)
    depmod -b "$unpacked" "$release"
    echo "  XEN   $release, ${*//=/ }"
    zcat "$unpacked/boot/xen-$xen_version-amd64.gz" >"$work/xen"
    unpack_kernel "$unpacked/boot/vmlinuz-$release" >"$work/vmlinux"
    build_guest
    build_dom0
    mv "$work"/{xen,vmlinux,dom0.cpio} "$out/"
    echo "$key" >"$out/base.key"
}

# Stripped, because dom0's memory holds them.
build_weft() { # KEY
    local root=$work/weft p
    unpacked=
    merged "$root"
    mkdir -p "$root"/{usr/share/openvswitch,etc/xen/scripts,etc/weft}
    for p in "${programs[@]}"; do
        strip -o "$root/bin/$(basename "$p")" "$p"
        put_libraries "$root" "$p"
    done
    # DPDK loads what is here: the mempool operations it asks for by name.
    put "$root" "$multiarch"/dpdk/pmds-*/librte_mempool_ring.so.*.0
    cp "$top"/build/share/{vswitch,pool}.ovsschema "$root/usr/share/openvswitch/"
    "$top/build/bin/weft" pki init "$root/etc/weft/pki" >/dev/null
    for p in 1 2; do
        "$top/build/bin/weft" pki host h$p --address 10.9.0.10$p --dir "$root/etc/weft/pki" >/dev/null
    done
    "$top/build/bin/weft" pki user root --role admin --dir "$root/etc/weft/pki" >/dev/null
    [ -d "$top/tools/xen" ] && find "$top/tools/xen" -type f -name 'vif-*' \
        -exec install -t "$root/etc/xen/scripts" {} +
    pack "$root" >"$work/weft.cpio"
    mv "$work/weft.cpio" "$out/"
    echo "$1" >"$out/weft.key"
}

# --- what is to be built ---------------------------------------------------------

programs=("$top"/build/bin/{weft,weft-vswitchd,weft-xapid,weft-domain,weft-migrate} \
    "$top"/build/bin/ovsdb-{server,client,tool} \
    "$top"/build/bin/ovs-{vsctl,appctl,ofctl})
for p in "${programs[@]}"; do
    [ -x "$p" ] || {
        echo "$p is not there: run 'make build' first" >&2
        exit 2
    }
done

# Without lists of packages, what was built before is good enough.
debs=$(wanted_debs) || { apt-get -qq update && debs=$(wanted_debs); } || debs=
mapfile -t debs <<<"$debs"
machine=$(dpkg-query -W -f '${Package}=${Version} ' busybox-static iproute2 iperf3 socat ethtool \
    iputils-ping libc6 libxenmisc$xen_version)
base_key="${debs[*]} $machine $(cat "$0" "$here"/{dom0,guest}/init | sha256sum)"
if [ -z "${debs[0]}" ] && [ ! -e "$out/base.key" ]; then
    echo "Debian's packages of Xen and Linux cannot be found" >&2
    exit 3
fi
work=$(mktemp -d "$out/images.XXXXXX")
if [ -n "${debs[0]}" ] && [ "$base_key" != "$(cat "$out/base.key" 2>/dev/null)" ]; then
    build_base "$base_key" "${debs[@]}"
fi
weft_key=$(cat "$0" "${programs[@]}" "$top"/tools/xen/* 2>/dev/null | sha256sum)
if [ "$weft_key" != "$(cat "$out/weft.key" 2>/dev/null)" ]; then
    build_weft "$weft_key"
fi
