#!/bin/bash
# A host that boots without its controller has its policy: flows, groups, meters
# and Geneve option maps come back after SIGKILL; while they cannot, guests' ports
# are closed and the host's own open, until they can or the bridge is given other
# flows; a bridge that is removed takes its file along.
#
#   g1 (guest) -- br0 -- p0 (uplink)
#                  |
#              host, h1 (the host's, too)
set -u
cd "$(dirname "$0")/../.."
suite=policy
if [ "$(id -u)" -eq 0 ] && [ -z "${POLICY_NETNS:-}" ]; then
    # Whatever happens in there ends with it.
    POLICY_NETNS=1 exec unshare --net --pid --fork --kill-child --mount-proc "$0"
fi
. tests/smoke/lib.bash
need_root "a bridge's local port"

export OVS_RUNDIR=$dir OVS_LOGDIR=$dir OVS_DBDIR=$dir OVS_SYSCONFDIR=$dir
switch() {
    "$bin/weft-vswitchd" "unix:$dir/db.sock" --pidfile="$dir/switch.pid" --log-file="$dir/log" \
        --detach -vconsole:off -vsyslog:off 2>/dev/null
}
killed() {
    local pid
    pid=$(cat "$dir/switch.pid")
    kill -KILL "$pid"
    until_true 10 test ! -d "/proc/$pid"
}
ofctl() { "$bin/ovs-ofctl" -O OpenFlow15 "$@"; }
vsctl() { "$bin/ovs-vsctl" --timeout=60 --db="unix:$dir/db.sock" "$@"; }
state() { # what there is, comparable
    ofctl --no-names dump-flows --no-stats br0 | sort
    ofctl dump-groups br0 | tail -n +2 | sort
    ofctl dump-meters br0 | tail -n +2 | sort
    ofctl dump-tlv-map br0 | tail -n +2 | sort
}
saved() { grep -q "$1" "$dir"/weft/*.openflow 2>/dev/null; }
same() { state >"$dir/after" && cmp "$dir/before" "$dir/after"; }
no_flows() { [ -z "$(ofctl dump-flows --no-stats br0)" ]; }
ctl() { "$bin/ovs-appctl" -t "$dir/ovs-vswitchd.$(cat "$dir/switch.pid").ctl" "$@"; }
held() { ctl ofstate/show | grep "^br0: held.*$1"; }
decided() { ctl ofproto/trace br0 "$1" | grep '^Datapath actions:'; }
number() { ctl dpif/show | sed -n "s|^ *$1 [0-9]*/\([0-9]*\):.*|\1|p"; } # in the datapath
closed() { # for the guest, not for the host
    local g1 p0 h1
    g1=$(number g1) p0=$(number p0) h1=$(number h1)
    [ -n "$g1" ] && [ -n "$p0" ] && [ -n "$h1" ] && [ "$(decided in_port=g1)" = "Datapath actions: drop" ] &&
        decided in_port=LOCAL | grep -w "$p0" &&
        ! decided in_port=LOCAL,dl_dst=ff:ff:ff:ff:ff:ff | grep -w "$g1" &&
        decided in_port=p0,dl_dst=ff:ff:ff:ff:ff:ff | grep -w "$(number br0)" &&
        ! decided in_port=p0,dl_dst=ff:ff:ff:ff:ff:ff | grep -w "$g1" &&
        decided in_port=p0,dl_dst=ff:ff:ff:ff:ff:ff | grep -w "$h1" &&
        decided in_port=h1,dl_dst=ff:ff:ff:ff:ff:ff | grep -w "$p0"
}
open_again() { [ "$(decided in_port=g1,tcp)" != "Datapath actions: drop" ]; }
no_files() { ! ls "$dir"/weft/*.openflow 2>/dev/null; }

"$bin/ovsdb-tool" create "$dir/conf.db" build/share/vswitch.ovsschema
"$bin/ovsdb-server" "$dir/conf.db" --remote="punix:$dir/db.sock" --pidfile="$dir/db.pid" --detach
vsctl --no-wait init
switch
ip link add p0 type veth peer name p1
vsctl add-br br0 -- add-port br0 p0 -- add-port br0 g1 -- \
    set interface g1 type=internal external_ids:xs-vif-uuid=c0ffee -- \
    add-port br0 h1 -- set interface h1 type=internal
ofctl add-meter br0 'meter=7,kbps,burst,bands=type=drop,rate=1000,burst_size=100'
ofctl add-group br0 'group_id=3,type=select,bucket=bucket_id:1,weight=10,actions=output:1'
# Of each kind more than one: they are kept in arrays that grow.
for ((i = 20; i < 40; i++)); do
    echo "group_id=$i,type=all,bucket=bucket_id:1,actions=output:1,bucket=bucket_id:2,actions=output:2"
done | ofctl add-groups br0 -
ofctl add-meter br0 'meter=8,pktps,bands=type=drop,rate=5'
ofctl add-tlv-map br0 '{class=0xffff,type=0x2,len=4}->tun_metadata1'
for i in 3 4 5; do
    ofctl add-tlv-map br0 "{class=0xffff,type=0x$i,len=8}->tun_metadata$i"
done
for ((i = 1; i <= 500; i++)); do
    echo "table=1,cookie=$i,priority=$i,tcp,nw_src=10.0.0.$((i % 250)),tp_dst=$i," \
        "actions=ct(commit,table=2),load:0x$i->NXM_NX_REG0[],group:3"
done | ofctl add-flows br0 -
ofctl add-flow br0 "table=0,priority=5,tun_metadata1=0x1234,\
actions=meter:7,resubmit(,1),controller(max_len=64)"

check save until_true 10 saved 'tun_metadata1=0x1234'
ofctl add-flow br0 'priority=4,in_port=g1,tcp,actions=output:p0'
check save-more until_true 10 saved 'priority=4,tcp,in_port'
state >"$dir/before"
killed
switch
check restore until_true 10 same

killed
cp "$dir"/weft/*.openflow "$dir/good"
sed -i 's/^flow cookie=0x1,.*/flow actions=group:999/' "$dir"/weft/*.openflow
switch
check refused until_true 10 held OFPBAC_BAD_OUT_GROUP
check no-flows no_flows
check closed until_true 5 closed
kept() { [ "$(grep -l group:999 "$dir"/weft/* | wc -l)" = 2 ]; }
check kept-aside kept
# What is refused is mended; groups and meters are there already.
cp "$dir/good" "$dir"/weft/*.openflow
check tried-again until_true 10 same
check open-again until_true 5 open_again

# An error of the disk.
killed
file=$(ls "$dir"/weft/*.openflow)
mv "$file" "$dir/good"
mkdir "$file"
switch
check not-read until_true 10 held directory
check closed-without-it until_true 5 closed
killed
switch
check held-twice until_true 10 held directory
rmdir "$file"
mv "$dir/good" "$file"
check read-at-last until_true 10 same
refuse not-held held .

# A bridge that comes up late.
killed
vsctl --no-wait set bridge br0 datapath_type=none -- set open . other_config:weft-restore-ms=0
switch
check not-up until_true 10 held 'come up'
vsctl --no-wait set bridge br0 'datapath_type=""'
check up-and-restored until_true 10 same
check open-at-last until_true 5 open_again

# Other flows than those that are lost.
killed
echo nothing >"$file"
switch
check lost until_true 10 held 'not a file'
ofctl add-flow br0 'priority=9,in_port=g1,tcp,actions=LOCAL'
check save-again until_true 10 saved 'priority=9'
check given-others until_true 5 open_again
check lost-kept-aside grep -qx nothing "$file.bad"
refuse forwards-the-rest eval 'decided in_port=p0 | grep -v drop'

# A controller that the bridge calls by itself: it is called, and what was restored stays.
vsctl set-fail-mode br0 secure -- set-controller br0 tcp:127.0.0.1:9
ofctl add-flow br0 'priority=8,udp,actions=LOCAL'
check save-under-controller until_true 10 saved 'priority=8'
killed
: >"$dir/log"
switch
called() { grep -q 'br0<->tcp:127.0.0.1:9: connect' "$dir/log"; }
check controller-called until_true 10 called
vsctl set bridge br0 other_config:mac-aging-time=200
kept_flows() { ofctl dump-flows br0 | grep priority=8; }
check controller-flows-stay kept_flows
vsctl del-controller br0

# After a large table the switch rests for seconds before it saves again, but not when it ends.
awk 'BEGIN { for (i = 0; i < 80000; i++) printf "table=2,udp,nw_src=10.1.%d.%d,tp_dst=%d,actions=drop\n",
    i % 200, i / 200 % 200, i / 40000 }' | ofctl add-flows br0 -
check large-saved until_true 30 saved 'nw_src=10.1.199.199,tp_dst=1'
ofctl add-flow br0 'priority=10,udp,actions=drop'
ended() {
    local pid
    pid=$(cat "$dir/switch.pid")
    "$bin/ovs-appctl" -t "$dir/ovs-vswitchd.$pid.ctl" exit
    until_true 30 test ! -d "/proc/$pid"
}
check ends ended
check saved-at-its-end saved 'priority=10,udp'

# The uplink is behind a patch, on a bridge of its own, which is not held.
echo nothing >"$file"
vsctl --no-wait del-port p0 -- add-br up -- add-port up p0 -- \
    add-port up up-in -- set interface up-in type=patch options:peer=up-out -- \
    add-port br0 up-out -- set interface up-out type=patch options:peer=up-in
echo nothing >"$dir/weft/$(vsctl get bridge up _uuid).openflow"
switch
check lost-both until_true 10 held 'not a file'
behind_patch() {
    local g1 p0
    g1=$(number g1) p0=$(number p0)
    [ -n "$g1" ] && [ -n "$p0" ] && decided in_port=LOCAL,dl_dst=ff:ff:ff:ff:ff:ff >"$dir/out" &&
        grep -w "$p0" "$dir/out" && ! grep -w "$g1" "$dir/out" &&
        ctl ofproto/trace up in_port=p0,dl_dst=ff:ff:ff:ff:ff:ff | grep '^Datapath' >"$dir/in" &&
        grep -w "$(number br0)" "$dir/in" && ! grep -w "$g1" "$dir/in"
}
check uplink-behind-patch until_true 5 behind_patch
check uplink-not-held eval 'ctl ofstate/show | grep "^up: in force"'

# Turned off, nothing is restored or held.
killed
vsctl --no-wait set open . other_config:weft-save-openflow=false -- del-fail-mode br0
switch
check not-saved until_true 10 open_again
refuse not-held-either held .
vsctl del-br br0 -- del-br up
check removed until_true 10 no_files

kill "$(cat "$dir/switch.pid")" "$(cat "$dir/db.pid")"
finish
