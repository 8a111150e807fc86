#!/bin/bash
# A guest's vif moves from one switch to another: hold, state, late frames, announcements.
#
#   host A (namespace)               host B (namespace)
#   g1 -vif1.0-+                     +-vif1.0 - g1, later
#   g2 -vif2.0-+- xenbr0 == veth == xenbr0
#
# Both bridges track connections to g1 in zone 5.  A lets new ones to port 5201
# begin, B none: what goes on there was carried over.  The hands of
# weft-migrate are test_mig_network's.  At the end g1 moves on to a third host C behind
# B, whose switch is the distribution's ovs-vswitchd, and from there to A: what that
# takes part in works, and the rest is said.  Everything lives in private namespaces.
set -u
cd "$(dirname "$0")/../.."
suite=vif_move
schema=$PWD/build/share/vswitch.ovsschema
hands=$PWD/build/${VARIANT:-plain}/tests/test_mig_network
if [ "$(id -u)" -eq 0 ] && [ -z "${MOVE_TEST_INSIDE:-}" ]; then
    MOVE_TEST_INSIDE=1 exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" "$@"
fi
. tests/smoke/lib.bash
need_root "network namespaces"
mkdir -p /run/netns
mount -t tmpfs none /run/netns

mac=00:16:3e:00:01:00
key=77

on() { # HOST COMMAND...
    local h=$1
    shift
    OVS_RUNDIR=$dir/$h OVS_LOGDIR=$dir/$h OVS_DBDIR=$dir/$h ip netns exec "$h" "$@"
}
vsctl() { on "$1" "$bin/ovs-vsctl" --timeout=20 "${@:2}"; }
appctl() { on "$1" "$bin/ovs-appctl" --timeout=20 "${@:2}"; }
ofctl() { on "$1" "$bin/ovs-ofctl" --timeout=20 "${@:2}"; }
start_database() { # HOST
    local d=$dir/$1
    mkdir -p "$d"
    ip netns add "$1"
    ip -n "$1" link set lo up
    "$bin/ovsdb-tool" create "$d/conf.db" "$schema"
    on "$1" "$bin/ovsdb-server" "$d/conf.db" --remote="punix:$d/db.sock" --pidfile --detach \
        --no-chdir --log-file -vconsole:off 2>>"$d/stderr"
    vsctl "$1" --no-wait init
}
start_stock_host() { # HOST VSWITCHD
    start_database "$1"
    on "$1" "$2" --pidfile --detach --no-chdir --log-file -vconsole:off 2>>"$dir/$1/stderr" || return
    vsctl "$1" add-br xenbr0 -- set bridge xenbr0 datapath_type=netdev fail_mode=secure \
        mcast_snooping_enable=true
}
start_host() { # HOST
    local d=$dir/$1
    start_database "$1"
    "$bin/weft-localxen" --dir "$d/xen" >"$d/xen.log" 2>&1 &
    until_true 10 test -S "$d/xen/xenstored" || give_up "weft-localxen does not start"
    vsctl "$1" --no-wait set Open_vSwitch . other_config:dpdk-init=true \
        other_config:dpdk-extra=--no-pci other_config:weft-small-mbufs=4096 \
        other_config:weft-large-mbufs=512 "other_config:weft-hv=local:$d/xen"
    on "$1" "$bin/weft-vswitchd" --pidfile --detach --no-chdir --log-file -vconsole:off \
        2>>"$d/stderr" || give_up "weft-vswitchd does not start: $(tail -n 1 "$d/stderr")"
    vsctl "$1" add-br xenbr0 -- set bridge xenbr0 fail_mode=secure mcast_snooping_enable=true
}
# New connections to g1 begin by what is given, if anything.
policy() { # HOST [FLOW...]
    local h=$1
    shift
    printf '%s\n' "table=0,priority=10,arp,actions=NORMAL" "table=0,priority=10,rarp,actions=NORMAL" \
        "table=0,priority=20,ip,nw_proto=2,actions=NORMAL" "table=0,priority=10,icmp,actions=NORMAL" \
        "table=0,priority=5,ip,actions=ct(zone=5,table=1)" \
        "table=1,priority=10,ct_state=+trk+est,ip,actions=NORMAL" "$@" >"$dir/$h/flows"
    ofctl "$h" add-flows xenbr0 "$dir/$h/flows"
}
declare -A guest_pid
start_guest() { # HOST GUEST DOMID IP OPTION...
    local h=$1 g=$2 domid=$3 ip=$4
    shift 4
    ip netns add "$g" 2>/dev/null && ip -n "$g" link set lo up
    "$bin/weft-netfront" --dir "$dir/$h/xen" --domid "$domid" --mode tap --create --netns "$g" \
        --ip "$ip/24" --bridge xenbr0 "$@" >>"$dir/$g.log" 2>&1 &
    guest_pid[$g]=$!
}
end_guest() { # stopped as it is
    kill -TERM "${guest_pid[g1]}"
    kill -CONT "${guest_pid[g1]}"
    wait "${guest_pid[g1]}" 2>/dev/null
}
carrier_up() { appctl "$1" netback/show "$2" | grep -q 'carrier up'; }
reach() { ip netns exec "$1" ping -c 2 -i 0.2 -W 2 "$2"; }
say() { # VERB: to the hands; true if they answer "done"
    echo "$1" >&"${HANDS[1]}"
    local answer
    : >"$dir/lost"
    while read -rt 20 -u "${HANDS[0]}" answer && [[ $answer == lost* ]]; do
        echo "$answer" >>"$dir/lost"
    done
    echo "$answer" | tee "$dir/answer"
    [[ $answer == "$1: done"* ]]
}
end_hands() {
    local to=${HANDS[1]} pid=$HANDS_PID
    exec {to}>&-
    wait "$pid" 2>/dev/null
}
of_answer() { sed -n "s/.* $1=\([0-9,-]*\).*/\1/p" "$dir/answer"; }
lives() { # asks the holder of g2's connection
    test "$(python3 - "$dir/control" 10.0.0.1/5201 <<'PY'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.send(sys.argv[2].encode())
print(s.recv(4096).decode().strip())
PY
    )" = 10.0.0.1/5201
}
connections() { appctl "$1" dpctl/dump-conntrack zone=5 | grep -c "dport=5201"; }
learned() { appctl "$1" fdb/show xenbr0 | awk -v p="$2" -v m="$mac" '$3 == m && $1 == p { n = 1 } END { exit !n }'; }
ofport() { vsctl "$1" get interface "$2" ofport; }
state_is() { appctl "$1" weft/vif-show vif1.0 | grep -q "^vif1.0: $2 "; }
kept() { test "$(appctl A weft/vif-show vif1.0 | sed 's/.* kept=\([0-9]*\).*/\1/')" -ge "$1"; }
meter_of() { echo $((0xd5000000 + $(ofport "$1" vif1.0))); } # the controller's numbers
# A bucket of 1 Mbit that fills with 1 kbit/s, so it hardly does meanwhile.
make_meter() { ofctl "$1" -O OpenFlow13 add-meter xenbr0 "meter=$(meter_of "$1"),kbps,burst,band=type=drop,rate=1,burst_size=1000"; }
take_120_kbit() { # HOST
    local i meter
    meter=$(meter_of "$1")
    for i in 1 2 3 4 5 6 7 8 9 10; do
        ofctl "$1" -O OpenFlow15 packet-out xenbr0 "in_port=controller,packet=$(printf '%03000d' 0),actions=meter:$meter,LOCAL" || return
    done
}
bucket_is() { # HOST LEAST MOST: bits
    appctl "$1" weft/vif-export vif1.0 "$dir/state" "ofport=$(ofport "$1" vif1.0)"
    python3 - "$dir/state" "$2" "$3" <<'PY'
import struct, sys
state, at = open(sys.argv[1], "rb").read(), 32
while at < len(state):
    kind, n = struct.unpack_from("<II", state, at)
    if kind == 0x80000004:
        level, = struct.unpack_from("<Q", state, at + 16)
        print(level)
        sys.exit(n != 16 or not int(sys.argv[2]) <= level <= int(sys.argv[3]))
    at += 8 + (n + 7) // 8 * 8
sys.exit("no meters")
PY
}
ended() { ! [ -e "$dir/A/ovs-vswitchd.pid" ] && ! [ -e "$dir/B/ovs-vswitchd.pid" ]; }
# Said once more until it is heard, as the engine does: a switch on the way may learn the old one
# again from packets that it has yet to account for.
announced() { # HOST OFPORT: where the guest is seen from there
    learned "$1" "$2" || { say announce && learned "$1" "$2"; }
}
joined() { appctl "$1" mdb/show xenbr0 | grep -q "$2"; }

# --- hosts and guests -------------------------------------------------------------

start_host A
start_host B
ip link add vethA type veth peer name vethB
ip link set vethA netns A up
ip link set vethB netns B up
vsctl A add-port xenbr0 vethA
vsctl B add-port xenbr0 vethB
check policy-A policy A "table=1,ct_state=+trk+new,tcp,tp_dst=5201,actions=ct(commit,zone=5,exec(load:$key->NXM_NX_CT_LABEL[64..95])),NORMAL"
check policy-B policy B
vsctl B --no-wait add-port xenbr0 vif1.0 -- set interface vif1.0 type=netback options:domid=1 options:handle=0
start_guest A g1 1 10.0.0.1 --mac "$mac"
start_guest A g2 2 10.0.0.2
for v in 1 2; do
    until_true 20 carrier_up A "vif$v.0" || give_up "vif$v.0 does not come up"
done
check reach reach g2 10.0.0.1
ip netns exec g1 python3 tests/smoke/tcp_probe.py serve 5201 5202 >"$dir/serve" 2>&1 &
started $!
until_true 10 grep -q ready "$dir/serve" || give_up "no server"
ip netns exec g2 python3 tests/smoke/tcp_probe.py hold "$dir/control" 10.0.0.1/5201 >"$dir/hold" 2>&1 &
started $!
until_true 10 grep -q ready "$dir/hold" || give_up "no connection: $(cat "$dir/hold")"
# A group that g1 has joined.
ip netns exec g1 python3 -c 'import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.1.2.3") + socket.inet_aton("10.0.0.1"))
time.sleep(300)' &
started $!
check group-joined until_true 10 joined A 239.1.2.3
check connection-tracked test "$(connections A)" -ge 1
coproc HANDS { exec "$hands" "$dir/A" "$dir/B" vif1.0 "$mac" "$key" 5 10.0.0.1 2>"$dir/hands.log"; }

# --- cancelled -----------------------------------------------------------------------

check watch say watch
check gather say gather
kill -STOP "${guest_pid[g1]}"
check hold say hold
check hold-again say hold
check held state_is A held
ip netns exec g2 ping -c 3 -i 0.05 -W 5 10.0.0.1 >"$dir/ping" 2>&1 &
ping=$!
until_true 10 kept 3
check release say release
check released state_is A -
kill -CONT "${guest_pid[g1]}"
wait $ping
check cancelled-nothing-lost grep -q ' 3 received' "$dir/ping"
check cancelled-connection lives

# --- moved ---------------------------------------------------------------------------

check meters make_meter A
check meters-there make_meter B
check meter-runs take_120_kbit A
check meter-has-less bucket_is A 800000 930000
check meter-there-is-full bucket_is B 1000000 1000000
check watch-again say watch
kill -STOP "${guest_pid[g1]}"
check hold-to-move say hold
check export say export
check keep say keep
check waits state_is B waiting
check import say import
check import-connection test "$(connections B)" = 1
check import-meter bucket_is B 800000 980000
ip netns exec g2 ping -c 5 -i 0.05 -W 10 10.0.0.1 >"$dir/ping" 2>&1 &
ping=$!
until_true 10 kept 5
# The guest's process at A ends; its port stays for late frames.
end_guest
check port-lingers vsctl A port-to-br vif1.0
check late say late
check late-frames test "$(of_answer frames)" -ge 5
ofport_uplink=$(ofport A vethA)
start_guest B g1 1 10.0.0.1 --mac "$mac"
check arrives until_true 20 carrier_up B vif1.0
check announce say announce
check announced until_true 5 announced A "$ofport_uplink"
check group-announced until_true 5 joined B 239.1.2.3
wait $ping
check late-frames-answered grep -q ' 5 received' "$dir/ping"
check times say times
check blackout test "$(of_answer blackout_ns)" -gt 0
check connection-goes-on lives
check new-connection-denied ip netns exec g2 python3 tests/smoke/tcp_probe.py connect --closed 10.0.0.1/5201 --closed 10.0.0.1/5202
check source-port-goes until_true 10 not vsctl A port-to-br vif1.0
refuse no-alarm grep -hE '\|(ERR|EMER)\|' "$dir/A/ovs-vswitchd.log" "$dir/B/ovs-vswitchd.log"

end_hands

# --- to a host with the distribution's Open vSwitch, and from it ------------------------

lost() { grep -qF "$1" "$dir/lost"; }
to_stock() {
    coproc HANDS { exec "$hands" "$dir/B" "stock:$dir/C" vif1.0 "$mac" "$key" 5 10.0.0.1 2>>"$dir/hands.log"; }
    check to-stock-watch say watch
    check to-stock-gather say gather
    kill -STOP "${guest_pid[g1]}"
    check to-stock-hold say hold
    check to-stock-export say export
    check to-stock-keep say keep
    check to-stock-import say import
    check to-stock-says-what-is-lost lost "lost at 1: vif1.0: tracked connections: Open vSwitch takes none"
    end_guest
    ip -n C link add vif1.0 type veth peer name eth0 netns g1 address "$mac"
    # A veth would hand blank checksums to a switch that takes them for bad ones.
    ip netns exec g1 ethtool -K eth0 tx off >/dev/null
    ip -n C link set vif1.0 up
    ip -n g1 address add 10.0.0.1/24 dev eth0
    vsctl C add-port xenbr0 vif1.0
    check to-stock-late say late
    vsctl B del-port vif1.0
    ip -n g1 link set eth0 up
    check to-stock-announce say announce
    check to-stock-announced until_true 5 announced B "$(ofport B vethC)"
    check to-stock-says-that-late-frames-are-lost lost "vif1.0: late frames: Open vSwitch's guest takes none"
    check to-stock-says-that-groups-wait lost "vif1.0: membership of groups, until the next query"
    check to-stock-connection-goes-on lives
    end_hands
}
from_stock() {
    coproc HANDS { exec "$hands" "$dir/C" "$dir/A" vif1.0 "$mac" "$key" 5 10.0.0.1 2>>"$dir/hands.log"; }
    check from-stock-watch say watch
    check from-stock-gather say gather
    ip -n g1 link delete eth0
    check from-stock-hold say hold
    check from-stock-export say export
    check from-stock-says-what-is-lost lost "lost at 0: vif1.0: tracked connections: Open vSwitch shows"
    check from-stock-times-unknown lost "Open vSwitch does not tell when it moved the last packet"
    vsctl A --no-wait add-port xenbr0 vif1.0 -- set interface vif1.0 type=netback options:domid=1 options:handle=0
    check from-stock-keep say keep
    check from-stock-import say import
    check from-stock-late say late
    start_guest A g1 1 10.0.0.1 --mac "$mac"
    check from-stock-arrives until_true 20 carrier_up A vif1.0
    check from-stock-announce say announce
    check from-stock-announced until_true 5 announced B "$(ofport B vethB)"
    check from-stock-connection-goes-on lives
    check from-stock-tracked-anew test "$(connections A)" -ge 1
    end_hands
}
if stock=$(tests/stock_ovs.sh 2>"$dir/out"); then
    start_stock_host C "$stock" || give_up "ovs-vswitchd does not start: $(tail -n 1 "$dir/C/stderr")"
    ip link add vethC type veth peer name vethD
    ip link set vethC netns B up
    ip link set vethD netns C up
    vsctl B add-port xenbr0 vethC
    vsctl C add-port xenbr0 vethD
    check policy-C policy C "table=1,ct_state=+trk+new,tcp,tp_dst=5201,actions=ct(commit,zone=5),NORMAL"
    to_stock
    from_stock
    kill "$(cat "$dir/C/ovs-vswitchd.pid")"
else
    echo "skip vif_move/stock: no stock ovs-vswitchd: $(tail -n 1 "$dir/out")"
fi

for h in A B; do
    kill "$(cat "$dir/$h/ovs-vswitchd.pid")"
done
check ends until_true 10 ended
check no-socket-left test -z "$(find "$dir/A/weft" "$dir/B/weft" -name 'move-*')"
finish
