#!/bin/bash
# weft-vswitchd as a whole: plugging, VLANs, offloads on the way out, restart.
#
#   host A (namespace)                        host B (namespace)
#   g1 -vif1.0-+                              +-vif1.0- g5
#   g2 -vif2.0-+- xenbr0 -+- vxlan/geneve/gre -+- xenbr0
#   g3 -vif3.0-+          |                    |
#              uplink: brphy - vethA ======= vethB - brphy
#
# g1, g2, g5 are in VLAN 10, g3 in VLAN 20; xapi1 is the fake bridge of VLAN 10.
# Everything lives in private network, mount and PID namespaces and is gone
# with them.  DATAPATH=netdev runs them on Open vSwitch's datapath.
set -u
cd "$(dirname "$0")/../.."
suite=switch
schema=$PWD/build/share/vswitch.ovsschema
if [ "$(id -u)" -eq 0 ] && [ -z "${SWITCH_TEST_INSIDE:-}" ]; then
    SWITCH_TEST_INSIDE=1 exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" "$@"
fi
. tests/smoke/lib.bash
need_root "network namespaces"
mkdir -p /run/netns
mount -t tmpfs none /run/netns

# --- hosts and guests ----------------------------------------------------------

on() { # HOST COMMAND...
    local h=$1
    shift
    OVS_RUNDIR=$dir/$h OVS_LOGDIR=$dir/$h OVS_DBDIR=$dir/$h ip netns exec "$h" "$@"
}
vsctl() { on "$1" "$bin/ovs-vsctl" --timeout=20 "${@:2}"; }
appctl() { on "$1" "$bin/ovs-appctl" --timeout=20 "${@:2}"; }
start_switch() {
    on "$1" "$bin/weft-vswitchd" --pidfile --detach --no-chdir --log-file -vconsole:off \
        2>>"$dir/$1/stderr" || give_up "weft-vswitchd does not start: $(tail -n 1 "$dir/$1/stderr")"
}
start_host() { # HOST
    local d=$dir/$1
    mkdir -p "$d"
    ip netns add "$1"
    ip -n "$1" link set lo up
    "$bin/weft-localxen" --dir "$d/xen" >"$d/xen.log" 2>&1 &
    until_true 10 test -S "$d/xen/xenstored" || give_up "weft-localxen does not start"
    "$bin/ovsdb-tool" create "$d/conf.db" "$schema"
    on "$1" "$bin/ovsdb-server" "$d/conf.db" --remote="punix:$d/db.sock" --pidfile --detach \
        --no-chdir --log-file -vconsole:off 2>>"$d/stderr"
    vsctl "$1" --no-wait init
    vsctl "$1" --no-wait set Open_vSwitch . other_config:dpdk-init=true \
        other_config:dpdk-extra=--no-pci other_config:pmd-maxsleep=500 \
        other_config:weft-small-mbufs=4096 other_config:weft-large-mbufs=512 \
        "other_config:weft-hv=local:$d/xen"
    start_switch "$1"
    vsctl "$1" add-br xenbr0 -- set bridge xenbr0 datapath_type="${DATAPATH:-weft}"
}
# Waits for the switch's end, which its pid file does not outlive.
switch_gone() { # HOST PID
    until_true 10 not kill -0 "$2"
    rm -f "$dir/$1/ovs-vswitchd.pid"
}
declare -A guest_pid
start_guest() { # HOST GUEST DOMID IP NETFRONT-OPTION...
    local h=$1 g=$2 domid=$3 ip=$4
    shift 4
    ip netns add "$g" 2>/dev/null && ip -n "$g" link set lo up
    "$bin/weft-netfront" --dir "$dir/$h/xen" --domid "$domid" --mode tap --create --netns "$g" \
        --ip "$ip/24" --verbose "$@" >"$dir/$g.log" 2>&1 &
    guest_pid[$g]=$!
}
has_ids() {
    vsctl A get interface vif1.0 external_ids | tr -d '"' | tee "$dir/ids"
    for id in attached-mac=00:16:3e:00:01:00 weft-plugged=true xs-network-uuid=net-1 \
        xs-vif-uuid=vif-1 xs-vm-uuid=vm-1; do
        grep -q "$id" "$dir/ids" || return 1
    done
}
says_missing() { appctl A plug/show | grep 'vif4.0: bridge xapi1 does not exist'; }
listens() { ip netns exec "$1" ss -ltn | grep -q :5201; }
carrier_up() { appctl "$1" netback/show "$2" | grep -q 'carrier up'; }
reach() { ip netns exec "$1" ping -c 3 -i 0.2 -W 1 "$2"; }
# TCP both ways through the switch; fails unless at least 1 MB/s goes.
tcp() { # FROM-NS TO-NS ADDRESS
    local status=0 server
    ip netns exec "$2" iperf3 -s -1 >"$dir/iperf-server" 2>&1 &
    server=$!
    until_true 10 listens "$2"
    ip netns exec "$1" timeout 20 iperf3 -c "$3" -t 2 "${@:4}" -J >"$dir/iperf" || status=1
    kill "$server" 2>/dev/null
    wait "$server" 2>/dev/null
    [ $status -eq 0 ] || { tail -n 3 "$dir/iperf"; return 1; }
    python3 - "$dir/iperf" <<'PY'
import json, sys
rate = json.load(open(sys.argv[1]))["end"]["sum_received"]["bits_per_second"]
print("%.0f Mbit/s" % (rate / 1e6))
sys.exit(rate < 8e6)
PY
}
counter() { appctl "$1" coverage/show | awk -v n="$2" '$1 == n { sub(".*total: ", ""); v = $0 } END { print v + 0 }'; }

# True once the counter is not 0; a vif's thread publishes what it has counted
# once a second while it has something to do.
counted() { # HOST COUNTER FROM-NS ADDRESS
    ip netns exec "$3" ping -c 1 -W 1 "$4"
    test "$(counter "$1" "$2")" -gt 0
}

# --- plugging --------------------------------------------------------------------

start_host A
start_guest A g1 1 10.0.0.1 --bridge xenbr0.10 --vif-uuid vif-1 --vm-uuid vm-1 --network-uuid net-1
start_guest A g2 2 10.0.0.2 --bridge xenbr0 --vlan 10 --vlan-mode access
start_guest A g3 3 10.0.0.3 --bridge xenbr0.20
for v in 1 2 3; do
    check "plugged-vif$v" until_true 10 carrier_up A "vif$v.0"
done
check external-ids has_ids
check same-vlan reach g1 10.0.0.2
refuse other-vlan reach g1 10.0.0.3

start_guest A g4 4 10.0.0.4 --bridge xapi1
until_true 10 says_missing
check missing-bridge-said test "$(grep -c 'plug|WARN|vif4.0: bridge xapi1 does not exist' "$dir/A/ovs-vswitchd.log")" = 1
vsctl A add-br xapi1 xenbr0 10
check fake-bridge until_true 10 carrier_up A vif4.0
check fake-bridge-vlan reach g4 10.0.0.1

kill "${guest_pid[g4]}" && wait "${guest_pid[g4]}" 2>/dev/null
check unplugged until_true 10 not vsctl A port-to-br vif4.0

# By hand, with clear errors.
bad_port() { # OPTION... : add-port must say what is wrong
    local want=$1
    shift
    vsctl A -- --if-exists del-port manual -- add-port xenbr0 manual -- set interface manual \
        type=netback "$@" 2>&1 | grep -F "$want"
}
check error-domid-missing bad_port 'options:domid is missing' options:handle=0
check error-domid-range bad_port 'not a number from 0 to 32751' options:domid=40000 options:handle=0
check error-handle-text bad_port 'options:handle=x is not a number' options:domid=9 options:handle=x
check error-duplicate bad_port 'vif 1.0 is already port vif1.0' options:domid=1 options:handle=0
vsctl A --if-exists del-port manual

# --- offloads ----------------------------------------------------------------------

check tcp-guest-to-guest tcp g1 g2 10.0.0.2
check no-cut-between-guests test "$(counter A offload_cut)" = 0

# The host's own port is a TAP without virtio headers here.
ip -n A addr add 10.0.0.100/24 dev xapi1
ip -n A link set xapi1 up
check tcp-to-plain-tap tcp g1 A 10.0.0.100
check tcp-from-plain-tap tcp A g1 10.0.0.1
check cut-for-plain-tap until_true 10 counted A offload_cut g1 10.0.0.100

# Largest frames into a VLAN push, a flood and a mirror at once: VLAN 10 is
# pushed at the ports, no MAC is learned, and every packet is copied to a trunk.
start_guest A g6 6 10.0.6.6 --bridge xenbr0
until_true 10 carrier_up A vif6.0
vsctl A set bridge xenbr0 other_config:mac-table-size=10 flood_vlans=10 -- \
    --id=@out get port vif6.0 -- --id=@m create mirror name=m select_all=true output_port=@out -- \
    set bridge xenbr0 mirrors=@m >/dev/null
check tcp-flood-vlan-mirror tcp g1 g2 10.0.0.2
check alive-after-flood reach g1 10.0.0.2
vsctl A clear bridge xenbr0 mirrors flood_vlans

# --- tunnels -------------------------------------------------------------------------

start_host B
ip link add vethA type veth peer name vethB
for h in A B; do
    ip link set "veth$h" netns "$h"
    ip netns exec "$h" ethtool -K "veth$h" tx off >/dev/null 2>&1
    # The kernel must not answer ARP on the wire's raw end for the bridge's address.
    ip netns exec "$h" sh -c 'echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore'
    ip -n "$h" link set "veth$h" up
    vsctl "$h" add-br brphy -- set bridge brphy datapath_type="${DATAPATH:-weft}" -- add-port brphy "veth$h"
    ip -n "$h" link set brphy up
done
ip -n A addr add 172.16.0.1/24 dev brphy
ip -n B addr add 172.16.0.2/24 dev brphy
start_guest B g5 5 10.0.0.5 --bridge xenbr0.10
until_true 10 carrier_up B vif5.0

for kind in vxlan geneve gre; do
    vsctl A -- --if-exists del-port tun -- add-port xenbr0 tun -- set interface tun type=$kind \
        options:remote_ip=172.16.0.2 options:key=7
    vsctl B -- --if-exists del-port tun -- add-port xenbr0 tun -- set interface tun type=$kind \
        options:remote_ip=172.16.0.1 options:key=7
    check "ping-over-$kind" until_true 10 reach g1 10.0.0.5
    # Encapsulated frames of the default MTU do not fit the wire of 1,500.
    ip -n g1 link set eth0 mtu 1400
    ip -n g5 link set eth0 mtu 1400
    check "tcp-over-$kind" tcp g1 g5 10.0.0.5
    check "tcp-over-$kind-back" tcp g5 g1 10.0.0.1
done
check tunnelled-whole until_true 10 counted A offload_push_whole g1 10.0.0.5
check no-tunnel-drops test "$(counter A offload_push_drop)" = 0

# --- restart --------------------------------------------------------------------------

pid=$(cat "$dir/A/ovs-vswitchd.pid")
kill -KILL "$pid"
switch_gone A "$pid"
start_switch A
check back-after-kill until_true 10 reach g1 10.0.0.2
check no-carrier-change not grep -q 'carrier down' "$dir/g1.log"
check ports-kept test "$(grep -c 'vif1.0: plugged' "$dir/A/ovs-vswitchd.log")" = 1
pid=$(cat "$dir/A/ovs-vswitchd.pid")
appctl A exit
switch_gone A "$pid"
start_switch A
check back-after-exit until_true 10 reach g1 10.0.0.2
check no-carrier-change-at-exit not grep -q 'carrier down' "$dir/g1.log"
appctl A exit --cleanup
check closed-at-cleanup until_true 10 grep -q 'carrier down' "$dir/g1.log"

check no-asserts not grep -E 'assert|EMER|unreachable' "$dir/A/ovs-vswitchd.log" \
    "$dir/B/ovs-vswitchd.log"
finish
