#!/bin/bash
# Rate limits and mirrors with real traffic, on a host with weft-vswitchd (h1) and
# one with the distribution's Open vSwitch (h2): g1 and g3 share red-lan.
#
# Prints "ok NAME" or "not ok NAME: why" a case.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck disable=SC2034 # lib.bash's
suite=pool_ports
. tests/smoke/lib.bash
need_root "a lab"
name=plp$$
lab=$dir/lab
probe=$PWD/tests/smoke/net_probe.py

W() {
    local command=$1
    shift
    "$bin/weft" lab "$command" --name "$name" --dir "$lab" "$@"
}
pool() { W exec pool -- weft "$@"; }
stock=$(tests/stock_ovs.sh 2>"$dir/said") || {
    echo "skip pool_ports: no stock ovs-vswitchd: $(tail -n 1 "$dir/said")"
    exit 0
}
at_end "W down"
W up --pool --hosts 2 --guests 2 --stock 1 --stock-vswitchd "$stock" >"$dir/up" 2>&1 ||
    give_up "$(tail -n 20 "$dir/up")"

# --- rate limits -----------------------------------------------------------------
until_ready() { until_true 10 grep -q ready "$1"; }
# flow FROM TO ADDRESS: kbit/s that arrive of 32,000 sent.
flow() {
    local receiver got
    : >"$dir/rate"
    W exec "$2" -- "$probe" rate 9000 >"$dir/rate" &
    receiver=$!
    until_ready "$dir/rate"
    W exec "$1" -- "$probe" send "$3" 9000 32000 2.5
    wait "$receiver"
    got=$(tail -n 1 "$dir/rate")
    echo "$got"
}
# limited KBPS FROM TO ADDRESS: within 15 %.
limited() {
    local got
    got=$(flow "${@:2}")
    echo "$got kbit/s instead of $1"
    ((got >= $1 * 85 / 100 && got <= $1 * 115 / 100))
}
# limit NAME KBPS FROM TO ADDRESS COMMAND...: the command states it.  A machine that
# holds a process up for long makes any rate another: three tries.
limit() {
    local case=$1
    pool "${@:6}" --wait >"$dir/said" 2>&1 || not_ok "$case-stated" "$(<"$dir/said")"
    check "$case" until_true 12 limited "${@:2:4}"
}
limit weft-from-vif 8000 g1 g3 10.1.0.2 vif set g1-eth0 rate_out_kbps=8000
limit weft-to-vif 8000 g3 g1 10.1.0.1 vif set g1-eth0 rate_out_kbps=0 rate_in_kbps=8000
limit stock-to-vif 6000 g1 g3 10.1.0.2 vif set g3-eth0 rate_in_kbps=6000
limit stock-from-vif 6000 g3 g1 10.1.0.1 network set red-lan rate_out_kbps=6000

# --- mirrors -----------------------------------------------------------------------
# copied WHO DEVICE KIND: pings of g1 and g3 are seen there.
copied() {
    local sniffer
    : >"$dir/sniff"
    W exec "$1" -- "$probe" sniff "$2" 10 "$3" 4 >"$dir/sniff" &
    sniffer=$!
    until_ready "$dir/sniff"
    W exec g1 -- ping -q -c 5 -i 0.2 10.1.0.2 >/dev/null
    wait "$sniffer" || { echo "$(tail -n 1 "$dir/sniff") frames"; return 1; }
}
mirror() {
    local case=$1
    pool mirror add m "${@:5}" --wait >"$dir/said" 2>&1 || not_ok "$case-stated" "$(<"$dir/said")"
    check "$case" copied "${@:2:3}"
    pool mirror remove m --wait >"$dir/said" 2>&1 || not_ok "$case-removed" "$(<"$dir/said")"
}
mirror mirror-to-vif g2 eth0 icmp vifs=g1-eth0 output_vif=g2-eth0
mirror mirror-to-vif-stock g4 eth0 icmp networks=red-lan output_vif=g4-eth0
# Of one direction: the wire is a bridge that learns addresses whatever the tag.
mirror mirror-to-vlan h2 wire0 777 vifs=g1-eth0 direction=out output_vlan=777
mirror mirror-to-vlan-stock h1 wire0 778 vifs=g3-eth0 direction=out output_vlan=778
mirror mirror-to-gre h2 wire0 gre vifs=g1-eth0 output_ip=192.168.77.2
mirror mirror-to-erspan-stock h1 wire0 erspan vifs=g3-eth0 output_ip=192.168.77.1 \
    encapsulation=erspan session=7
no_rows() { [ -z "$(W exec "$1" -- ovs-vsctl list mirror)" ]; }
check mirrors-gone no_rows h1
check mirrors-gone-stock no_rows h2

# --- a bond -----------------------------------------------------------------------------
# The wire, and a device that leads nowhere: on both hosts, with the wire active.
talks() { W exec g1 -- ping -q -c 2 -i 0.2 -w 10 10.1.0.2; }
bond() {
    local h=$1
    W exec "$h" -- ip link add spare0 type veth peer name spare1 &&
        W exec "$h" -- ip link set spare0 up && W exec "$h" -- ip link set spare1 up &&
        W exec "$h" -- ovs-vsctl del-port wire0 &&
        pool bond add "$h" "host=$h" interfaces=wire0,spare0 primary=wire0 &&
        pool host set "$h" uplink=bond0 --wait
}
for h in h1 h2; do check "bond-$h" bond $h; done
check bond-traffic talks
pif_is() { # BRIDGE
    local said
    said=$(pool pif show h1-wire0 --json | tr -d ' \n')
    echo "$said"
    [[ $said == *"\"at_bridge\":\"$1\""* && $said == *'"link":"up"'* ]]
}
check pif-added pool pif add h1-wire0 host=h1 device=wire0
check pif-status until_true 10 pif_is weft-uplink
check pif-gone pool pif remove h1-wire0
active() { W exec "$1" -- ovs-appctl bond/show bond0 | grep -q "active.*$2"; }
check bond-active active h1 wire0
check bond-changed pool bond set h1 primary=spare0 mode=active-backup --wait
check bond-active-changed until_true 10 active h1 spare0
check bond-changed-back pool bond set h1 primary=wire0 --wait
check bond-traffic-changed until_true 10 talks
check bond-gone pool host set h1 uplink=wire0 --wait
check bond-gone-traffic until_true 10 talks
finish
