#!/bin/bash
# A pool of three hosts, the third with the distribution's Open vSwitch: tenants
# with overlapping addresses, VLANs and overlays across hosts, and policy at
# each scope, IPv4 and IPv6, for new connections and established ones.
#
#   h1 (weft)        h2 (weft)         h3 (ovs-vswitchd)
#    g1 10.1.0.1      g5 10.1.0.2       g9  10.1.0.3     red-lan    VLAN 10
#    g2 10.1.0.2      g6 10.1.0.3       g10 10.1.0.4     blue-lan   VLAN 20
#    g3 10.2.0.1      g7 10.2.0.2       g11 10.2.0.3     red-cloud  Geneve 5010
#    g4 10.2.0.2      g8 10.2.0.3       g12 10.2.0.4     blue-cloud Geneve 5020
#
# Prints "ok NAME" or "not ok NAME: why" a case.
# shellcheck disable=SC2046,SC2086 # lists of addresses
set -u
cd "$(dirname "$0")/../.." || exit 1
weft=${WEFT:-build/bin/weft}
probe=tests/smoke/tcp_probe.py
name=plb$$
dir=$(mktemp -d)
lab=$dir/lab
failed=0
servers=()

ok() { echo "ok pool_lab/$1"; }
not_ok() {
    echo "not ok pool_lab/$1: ${2//$'\n'/ | }"
    failed=1
}
# check NAME COMMAND...: the command succeeds; else its last output is the reason.
check() {
    local what=$1
    shift
    if "$@" >"$dir/out" 2>&1; then ok "$what"; else not_ok "$what" "$(tail -n 3 "$dir/out")"; fi
}
W() {
    local command=$1
    shift
    "$weft" lab "$command" --name "$name" --dir "$lab" "$@"
}
pool() { W exec pool -- weft "$@"; }
cleanup() {
    [ ${#servers[@]} -gt 0 ] && kill "${servers[@]}" 2>/dev/null
    [ -e "$lab" ] && W down >/dev/null 2>&1
    rm -rf "$dir"
}
trap cleanup EXIT
[ "$(id -u)" -eq 0 ] || { echo "skip pool_lab: needs root"; exit 0; }

stock=$(tests/stock_ovs.sh 2>"$dir/out") || {
    echo "skip pool_lab: no stock ovs-vswitchd: $(tail -n 1 "$dir/out")"
    exit 0
}
if ! W up --pool --hosts 3 --guests 4 --stock 1 --stock-vswitchd "$stock" >"$dir/up" 2>&1; then
    not_ok up "$(tail -n 20 "$dir/up")"
    exit 1
fi
ok up

# --- tenants --------------------------------------------------------------------
# pings GUEST ADDRESS...: all reply.  The first packet of a tunnel waits for ARP.
pings() {
    local g=$1 a
    shift
    for a; do
        W exec "$g" -- ping -q -c 1 -w 20 "$a" >/dev/null || { echo "$g does not reach $a"; return 1; }
    done
}
no_pings() {
    local g=$1 a
    shift
    for a; do
        ! W exec "$g" -- ping -q -c 2 -i 0.2 -W 1 "$a" >/dev/null || { echo "$g reaches $a"; return 1; }
    done
}
# The neighbour that answers for an address is the tenant's own.
neighbour() { W exec "$1" -- ip neigh show "$2" | grep -q " $3 "; }
check vlan-across-hosts pings g1 10.1.0.2 10.1.0.3 fd77::1:2 fd77::1:3
check vlan-across-hosts-back pings g10 10.1.0.2 10.1.0.3 fd77::1:2 fd77::1:3
check overlay-across-hosts pings g3 10.2.0.2 10.2.0.3 fd77::2:2 fd77::2:3
check overlay-across-hosts-back pings g12 10.2.0.2 10.2.0.3 fd77::2:2 fd77::2:3
check vlan-other-tenant no_pings g1 10.1.0.4 fd77::1:4
check overlay-other-tenant no_pings g4 10.2.0.1 fd77::2:1
check vlan-to-overlay no_pings g1 10.2.0.1 10.2.0.4
check same-address-own-tenant neighbour g1 10.1.0.3 02:77:66:74:00:09
check same-address-other-tenant neighbour g10 10.1.0.3 02:77:66:74:00:06

# --- a trunk ---------------------------------------------------------------------
# g1 and g9 have red-cloud as well, by tag: at a switch of ours and at the stock one.
trunk() {
    pool vif add $1-cloud vm=$1 network=red-cloud parent=$1-eth0 tag=$2 mac=$3 \
        locking_mode=locked ipv4_allowed=$4 --wait
}
# tagged GUEST TAG ADDRESS TO SECONDS: TO answers
tagged() {
    W exec $1 -- "$PWD/tests/smoke/net_probe.py" ping eth0 $2 02:77:66:74:00:0${1#g} $3 $4 $5
}
check trunk-stated trunk g1 100 02:77:66:74:00:01 10.2.0.101
check trunk-stated-stock trunk g9 200 02:77:66:74:00:09 10.2.0.109
for to in 10.2.0.1 10.2.0.2 10.2.0.3; do
    check trunk-to-overlay-$to tagged g1 100 10.2.0.101 $to 20
done
W exec g1 -- "$PWD/tests/smoke/net_probe.py" echo eth0 100 02:77:66:74:00:01 10.2.0.101 >"$dir/echo" &
servers+=($!)
check trunk-to-trunk tagged g9 200 10.2.0.109 10.2.0.101 20
check trunk-answers-overlay pings g7 10.2.0.101
check trunk-untagged pings g1 10.1.0.2 10.1.0.3
check trunk-other-tenant no_pings g4 10.2.0.101
check trunk-spoof eval '! tagged g9 200 10.2.0.55 10.2.0.2 0.6'
check trunk-other-tag eval '! tagged g9 100 10.2.0.109 10.2.0.2 0.6'
check trunk-removed pool vif remove g9-cloud --wait
check trunk-removed-tag eval '! tagged g9 200 10.2.0.109 10.2.0.2 0.6'

# --- policy at each scope ----------------------------------------------------------
# Servers on red-lan: behind a switch of ours and behind the stock one.
for g in g5 g9; do
    W exec $g -- "$PWD/$probe" serve 7001 7002 7003 >"$dir/serve.$g" &
    servers+=($!)
done
hosts="10.1.0.2 10.1.0.3 fd77::1:2 fd77::1:3"
# each PORT: ADDRESS/PORT of all of them
each() { printf "%s/$1 " $hosts; }
tcp() { W exec g1 -- "$PWD/$probe" connect "$@"; }
check open-by-default tcp --open $(each 7001) $(each 7002)

hold() {
    rm -f "$dir/hold"
    W exec g1 -- "$PWD/$probe" hold "$dir/hold" $(each 7001) $(each 7002) >"$dir/holding" &
    holder=$!
    until grep -qs ready "$dir/holding" || ! kill -0 $holder 2>/dev/null; do read -rt 0.05 <> <(:); done
    servers+=("$holder")
}
# alive ADDRESS/PORT...: just these connections echo.
alive() {
    local got want
    got=$(python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(" ".join(sys.argv[2:]).encode())
print(s.recv(4096).decode())' "$dir/hold" "$@")
    want=$(printf '%s\n' "$@" | sort | paste -sd ' ')
    [ "$got" = "$want" ] || { echo "echo: $got; wanted: $want"; return 1; }
}
hold
check established-before alive $(each 7001) $(each 7002)

declare -A object=([global]="" [pool]="" [network]="network=red-lan" [group]="group=servers"
    [vm]="vm=g5" [vif]="vif=g5-eth0")
pool group add servers vifs=g5-eth0,g9-eth0 >"$dir/out" 2>&1 || not_ok group "$(cat "$dir/out")"
# Port 7003 is denied by default, so widely that each scope may allow it.
pool policy add floor scope=global author=smoke >"$dir/out" 2>&1 &&
    pool rule add floor/no7003 order=20 direction=in action=deny protocol=tcp ports=7003 >>"$dir/out" 2>&1 ||
    not_ok floor "$(cat "$dir/out")"
for scope in global pool network group vm vif; do
    # What of ports 7001 and 7003 the scope covers, and what it leaves alone.
    closed="$(each 7001)" open="$(each 7002)" allowed="$(each 7003)" denied=
    case $scope in
    vm | vif)
        closed="10.1.0.2/7001 fd77::1:2/7001" open="10.1.0.3/7001 fd77::1:3/7001 $open"
        allowed="10.1.0.2/7003 fd77::1:2/7003" denied="10.1.0.3/7003 fd77::1:3/7003"
        ;;
    esac
    pool policy add $scope scope=$scope ${object[$scope]} author=smoke >"$dir/out" 2>&1 &&
        pool rule add $scope/7003 order=10 direction=in action=allow \
            protocol=tcp ports=7003 >>"$dir/out" 2>&1 &&
        pool rule add $scope/no7001 part=mandatory order=10 direction=in action=deny \
            protocol=tcp ports=7001 --wait >>"$dir/out" 2>&1 ||
        not_ok "scope-$scope-stated" "$(cat "$dir/out")"
    check scope-$scope-new tcp --open $open $allowed --closed $closed $denied
    check scope-$scope-established alive $open
    # The default part of a narrower scope does not undo a mandatory rule of a wider one.
    pool policy remove $scope --wait >"$dir/out" 2>&1 || not_ok "scope-$scope-removed" "$(cat "$dir/out")"
    check scope-$scope-removed tcp --open $(each 7001) $(each 7002) --closed $(each 7003)
done

# --- precedence ----------------------------------------------------------------------
pool policy add wide scope=pool author=smoke >/dev/null &&
    pool rule add wide/no part=default order=10 direction=in action=deny protocol=tcp ports=7001-7002 >/dev/null &&
    pool policy add narrow scope=vif vif=g5-eth0 author=smoke >/dev/null &&
    pool rule add narrow/yes part=default order=10 direction=in action=allow protocol=tcp ports=7002 --wait >"$dir/out" 2>&1 ||
    not_ok precedence-stated "$(cat "$dir/out")"
check default-narrower-wins tcp --open 10.1.0.2/7002 fd77::1:2/7002 \
    --closed $(each 7001) 10.1.0.3/7002 fd77::1:3/7002
pool rule set wide/no part=mandatory --wait >"$dir/out" 2>&1 || not_ok precedence-changed "$(cat "$dir/out")"
check mandatory-wider-wins tcp --closed $(each 7001) $(each 7002)
pool rule set wide/no remote_cidrs=10.1.0.9/32 --wait >"$dir/out" 2>&1 || not_ok remote-changed "$(cat "$dir/out")"
check remote-elsewhere tcp --open $(each 7001) $(each 7002)

# --- the controller is absent ----------------------------------------------------------
state() { python3 -c 'import json, sys; print(next(p["pid"] for p in json.load(open(sys.argv[1]))["procs"]
    if p["name"] == "weft-controllerd"))' "$lab/state.json"; }
kill -9 "$(state)"
check controller-killed-traffic-goes-on tcp --open $(each 7002)
pool status --timeout 20 >"$dir/out" 2>&1
check controller-back pool rule set wide/no remote_cidrs= --wait
check controller-back-policy tcp --closed $(each 7001) $(each 7002)

W down >"$dir/out" 2>&1 && ok down || not_ok down "$(tail -n 3 "$dir/out")"
exit $failed
