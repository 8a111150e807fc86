#!/bin/bash
# SIGKILL of weft-vswitchd under a ping flood, with hash, static grants and
# multicast control in use: the guests see no link change, the control state
# is still there, and traffic resumes by itself.  Stateful rules hold all the
# while: an established connection on which only the server speaks goes on,
# connections that the policy denies are never made.
#
#   host h1 ── xenbr0 ─┬─ g1  (2 queues, Toeplitz hash, static grants,
#                      └─ g2   multicast list)
set -u
cd "$(dirname "$0")/../.."
suite=restart
. tests/smoke/lib.bash
need_root "network namespaces"
weft=build/bin/weft
name=rst$$
kills=${RESTART_KILLS:-3}

lab() {
    local command=$1
    shift
    "$weft" lab "$command" --name "$name" --dir "$dir/lab" "$@"
}
at_end 'lab down'

status() { # PYTHON-EXPRESSION over the status 's'
    lab status --json | /usr/bin/python3 -c "import json, sys; s = json.load(sys.stdin); print($1)"
}
switch_pid() { status "s['hosts'][0]['vswitchd_pid']"; }
vif_status() { lab exec h1 -- ovs-vsctl --timeout=5 get interface vif1.0 "status:$1"; }
carrier_changes() {
    lab exec g1 -- cat /sys/class/net/eth0/carrier_changes
    lab exec g2 -- cat /sys/class/net/eth0/carrier_changes
}
state_in_use() {
    [ "$(vif_status static_grants)" = '"true"' ] && [ "$(vif_status multicast_control)" = '"true"' ] &&
        [ "$(vif_status queues)" = '"2"' ]
}
pings() { lab exec g1 -- ping -c 3 -i 0.2 -w 3 10.0.0.2 >/dev/null; }
# A group that was joined before the kill still reaches the guest: it answers
# a ping to it, which the backend's multicast list must let through.
group_reaches_guest() {
    lab exec g1 -- ping -c 3 -i 0.2 -W 2 -I eth0 224.0.0.1 | grep -q 'from 10\.0\.0\.2'
}

if ! lab up --no-spare --guests 2 --vlan 10 --queues 2 --hash --static-grants --multicast >"$dir/up" 2>&1; then
    give_up "$(tail -n 5 "$dir/up")"
fi
lab exec g2 -- /bin/sh -c 'echo 0 >/proc/sys/net/ipv4/icmp_echo_ignore_broadcasts'
check state-before until_true 10 state_in_use
check group-before group_reaches_guest

cat >"$dir/tcp.py" <<'END'
"""push | pull ADDRESS | listen | knock ADDRESS, for SECONDS"""
import socket
import sys
import time

mode, seconds = sys.argv[1], float(sys.argv[2])
end = time.monotonic() + seconds


def serve(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", port))
    s.listen()
    s.settimeout(seconds)
    return s


if mode == "push":
    c = serve(7000).accept()[0]
    c.settimeout(10)
    n = 0
    while time.monotonic() < end:
        n += c.send(b"x" * 64)
        time.sleep(0.005)
    c.shutdown(socket.SHUT_WR)
    print(n)
elif mode == "pull":
    c = socket.create_connection((sys.argv[3], 7000), 10)
    c.settimeout(10)
    n = 0
    while chunk := c.recv(65536):
        n += len(chunk)
    print(n)
elif mode == "listen":
    try:
        serve(7001).accept()
        print("connected")
    except TimeoutError:
        print("never")
else:
    made = 0
    while time.monotonic() < end:
        try:
            socket.create_connection((sys.argv[3], 7001), 0.2).close()
            made += 1
        except OSError:
            time.sleep(0.02)
    print(made)
END
cat >"$dir/flows" <<'END'
table=0,priority=20,tcp,ct_state=-trk,actions=ct(table=1,zone=9)
table=0,priority=10,actions=NORMAL
table=1,priority=20,tcp,tp_dst=7000,ct_state=+trk+new,actions=ct(commit,zone=9),NORMAL
table=1,priority=20,tcp,ct_state=+trk+est-inv,actions=NORMAL
END
lab exec h1 -- ovs-ofctl --bundle replace-flows xenbr0 "$dir/flows"
# Packets go by it, and a process that starts has it.
lab exec h1 -- ovs-appctl --timeout=5 revalidator/wait
saved() { grep -rq --include='*.openflow' 'tp_dst=7000' "$dir/lab"; }
check policy-saved until_true 10 saved
seconds=$((kills * 3 + 2))
in_guest() { lab exec "$1" -- /usr/bin/python3 "$dir/tcp.py" "${@:2}"; }
in_guest g2 push $seconds >"$dir/pushed" 2>&1 &
tcp=($!)
in_guest g1 listen $seconds >"$dir/heard" 2>&1 &
tcp+=($!)
read -rt 0.5 <> <(:)
in_guest g1 pull $seconds 10.0.0.2 >"$dir/pulled" 2>&1 &
tcp+=($!)
in_guest g2 knock $((seconds - 1)) 10.0.0.1 >"$dir/knocked" 2>&1 &
tcp+=($!)
# New connections are in their file within a moment.
read -rt 1 <> <(:)

links=$(carrier_changes)
lab exec g1 -- ping -f -w $((kills * 3 + 2)) 10.0.0.2 >"$dir/ping" &
ping=$!
for ((k = 0; k < kills; k++)); do
    # Traffic is flowing before each kill, and the new switch is another process.
    lab exec g2 -- ping -c 1 -w 5 10.0.0.1 >/dev/null
    old=$(switch_pid)
    kill -KILL "$old"
    end=$((SECONDS + 10))
    until [ "$(switch_pid)" != "$old" ] && lab exec g2 -- ping -c 1 -W 1 10.0.0.1 >/dev/null; do
        [ $SECONDS -lt $end ] || break
    done
done
wait $ping
wait "${tcp[@]}"

same_number() { # of bytes, sent and received
    cat "$1" "$2"
    [ "$(cat "$1")" -gt 0 ] 2>/dev/null && [ "$(cat "$1")" = "$(cat "$2")" ]
}
check established same_number "$dir/pushed" "$dir/pulled"
check policy [ "$(cat "$dir/heard") $(cat "$dir/knocked")" = "never 0" ]
check restarted [ "$(status "s['hosts'][0]['restarts']")" = "$kills" ]
check no-link-change [ "$(carrier_changes)" = "$links" ]
check state-after until_true 10 state_in_use
check group-after group_reaches_guest
check resumed pings
sed -n 's/.*transmitted.*/# flood: &/p' "$dir/ping"
finish
