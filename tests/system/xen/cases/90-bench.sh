# Weft beside the kernel's xen-netback with a Linux bridge, in the same dom0, two
# guests each (and one each on the other host), all alive, measured in turn.
#
#   k1 k2 - xen-netback - kbr0 (10.8.0.101) - eth2 === eth2 - kbr0 - k3     10.8.0.x
#   w1 w2 - weft        - xenbr0 (10.9.0.101) - eth1 === eth1 - xenbr0 - w3  10.9.0.x
#
# Both links have an MTU of 1500.  Figures are of virtual time (lab.sh).  Fails only if something cannot be measured; the
# table is kept as build/xen/bench.txt and .json.
# shellcheck shell=bash disable=SC2016,SC2154

# The kernel's driver would take every vif: it gets those bound to it by hand.
bench_setup='
    kernel_side() {
        printf "#!/bin/sh\nexit 0\n" >/etc/xen/scripts/vif-kernel
        chmod +x /etc/xen/scripts/vif-kernel
        modprobe bridge
        echo 0 >/sys/bus/xen-backend/drivers_autoprobe
        modprobe xen-netback
        ip link add kbr0 type bridge
        ip link set eth2 master kbr0 mtu 1500 up
        ip addr add "10.8.0.10$1/24" dev kbr0
        ip link set kbr0 up
        ip link set eth1 mtu 1500
    }
    kernel_guest() { # NAME ADDRESS
        guest "$1" pv "$2" bridge=kbr0 vif=script=vif-kernel &
        local creator=$! id
        until_true 20 eval "id=\$(xl domid $1 2>/dev/null) &&
            [ -e /sys/bus/xen-backend/devices/vif-\$id-0 ]" || die "$1 has no vif"
        echo "vif-$id-0" >/sys/bus/xen-backend/drivers/vif/bind
        wait "$creator"
        until_true 10 ip link set "vif$id.0" master kbr0 up || die "$1 has no device"
        xenstore-write "backend/vif/$id/0/hotplug-status" connected
    }
'

bench_rounds='
    in_mbit() { awk "/receiver/ { r = \$(NF - 2) } END { print r + 0 }"; }
    guest_tcp() { in_guest "$1" "iperf3 -f m -t 1 -c $2 2>&1" 60 | in_mbit; }
    guest_ping() { in_guest "$1" "ping -q -c 25 -i 0.01 -W 1 $2 2>&1" 30 | ping_ms; }
    ping_ms() { sed -n "s/.*= *[0-9.]*\/\([0-9.]*\)\/.*/\1/p"; }
    for round in 1 2 3 4 5; do
        for side in k:10.8.0 w:10.9.0; do
            s=${side%%:*} net=${side#*:}
            echo "= guest-guest $s $(guest_tcp ${s}1 $net.2)"
            echo "= dom0-guest $s $(tcp $net.1 -t 1)"
            echo "= guest-dom0 $s $(tcp $net.1 -t 1 -R)"
            echo "= guest-other-host $s $(guest_tcp ${s}1 $net.3)"
            echo "= ping-guest-guest $s $(guest_ping ${s}1 $net.2)"
            echo "= ping-dom0-guest $s $(ping -q -c 25 -i 0.01 -W 1 $net.1 | ping_ms)"
        done
    done
'

# case_bench: 420 s, two hosts
case_bench() {
    local other
    h2 "$bench_setup
        kernel_side 2
        kernel_guest k3 10.8.0.3
        guest w3 pv 10.9.0.3" &
    other=$!
    h1 "$bench_setup
        kernel_side 1
        kernel_guest k1 10.8.0.1
        kernel_guest k2 10.8.0.2
        guest w1 pv 10.9.0.1
        guest w2 pv 10.9.0.2
        for a in 10.8.0.1 10.8.0.2 10.9.0.1 10.9.0.2; do reach \$a 60; done" 90
    wait "$other"
    h1 'reach 10.8.0.3 60; reach 10.9.0.3 60'
    h1 "$bench_rounds" 150 >"$lab/bench"
    /usr/bin/python3 "$here/bench.py" "$lab/bench" "$images" >"$lab/bench.table"
    note "$(tail -n 1 "$lab/bench.table")"
    both '
        destroy_guests
        until_true 10 rmmod xen-netback || die "xen-netback is in use"
        echo 1 >/sys/bus/xen-backend/drivers_autoprobe
        ip link set eth2 nomaster down
        ip link set eth1 mtu 9000
        ip link del kbr0'
}
