#!/bin/bash
# SIGKILL of weft-vswitchd under a ping flood, with hash, static grants and
# multicast control in use: the guests see no link change, the control state
# is still there, and traffic resumes by itself.
#
#   host h1 ── xenbr0 ─┬─ g1  (2 queues, Toeplitz hash, static grants,
#                      └─ g2   multicast list)
set -u
cd "$(dirname "$0")/../.."
weft=build/bin/weft
name=rst$$
dir=$(mktemp -d)
failed=0
kills=${RESTART_KILLS:-3}

if [ "$(id -u)" -ne 0 ]; then
    echo "skip restart: needs root for network namespaces"
    exit 0
fi

check() { # NAME WHY COMMAND...
    local what=$1 why=$2
    shift 2
    if "$@"; then
        echo "ok restart/$what"
    else
        echo "not ok restart/$what: $why"
        failed=1
    fi
}
lab() {
    local command=$1
    shift
    "$weft" lab "$command" --name "$name" --dir "$dir/lab" "$@"
}
cleanup() {
    lab down >/dev/null 2>&1
    rm -rf "$dir"
}
trap cleanup EXIT

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
# A vif's control state and static grants copies, once the switch shows it.
until_state_in_use() {
    local end=$((SECONDS + 10))
    until state_in_use; do
        [ $SECONDS -lt $end ] || return 1
        read -rt 0.1 <> <(:)
    done
    return 0
}
pings() { lab exec g1 -- ping -c 3 -i 0.2 -w 3 10.0.0.2 >/dev/null; }
# A group that was joined before the kill still reaches the guest: it answers
# a ping to it, which the backend's multicast list must let through.
group_reaches_guest() {
    lab exec g1 -- ping -c 3 -i 0.2 -W 2 -I eth0 224.0.0.1 | grep -q 'from 10\.0\.0\.2'
}

if ! lab up --guests 2 --vlan 10 --queues 2 --hash --static-grants --multicast >"$dir/up" 2>&1; then
    echo "not ok restart/up: $(tail -n 5 "$dir/up" | tr '\n' ' ')"
    exit 1
fi
lab exec g2 -- /bin/sh -c 'echo 0 >/proc/sys/net/ipv4/icmp_echo_ignore_broadcasts'
check state-before "hash, static grants or multicast control are not in use" until_state_in_use
check group-before "a joined group does not reach the guest" group_reaches_guest

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

check restarted "the lab did not restart the switch $kills times" \
    [ "$(status "s['hosts'][0]['restarts']")" = "$kills" ]
check no-link-change "a guest saw its link change" [ "$(carrier_changes)" = "$links" ]
check state-after "hash, static grants or multicast control got lost" until_state_in_use
check group-after "the group joined before no longer reaches the guest" group_reaches_guest
check resumed "no traffic after the restart" pings
sed -n 's/.*transmitted.*/# flood: &/p' "$dir/ping"
exit $failed
