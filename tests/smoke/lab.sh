#!/bin/bash
# weft lab: a lab comes up whole, works, and goes without a trace, whatever
# happens to it.
#
#   host h1 ── xenbr0 ─┬─ g1 (VLAN 10)
#                      ├─ g2 (VLAN 20)     all in one subnet
#                      ├─ g3 (VLAN 10)
#                      └─ g4 (VLAN 20)
#
# WEFT is the program under test (build/bin/weft).
set -u
cd "$(dirname "$0")/../.."
suite=lab
. tests/smoke/lib.bash
need_root "network namespaces"
weft=${WEFT:-build/bin/weft}
name=smk$$
lab=$dir/lab

W() {
    local command=$1
    shift
    "$weft" lab "$command" --name "$name" --dir "$lab" "$@"
}
# query EXPRESSION: prints what a Python expression makes of JSON 'd'; fails if
# that is false.
query() { python3 -c 'import json, sys
d = json.load(sys.stdin)
v = eval(sys.argv[1])
print(v)
sys.exit(not v)' "$1"; }
status() { W status --json | query "$1"; }
supervisor() { query 'd["supervisor"]["pid"]' <"$lab/state.json"; }
# It holds its lab until it has ended.
kill_supervisor() {
    local pid
    pid=$(supervisor) && kill -9 "$pid" && until_true 20 not smoke_alive "$pid"
}
pings() { W exec "$1" -- ping -q -c 3 -i 0.2 -W 2 "$2"; }
# Waits, event by event of ping(8), until a guest is reached again.
reaches() { W exec "$1" -- ping -q -c 1 -w "$3" "$2"; }

# Every trace that a lab could leave: names, directory, live processes (their
# command lines name the directory; what exec started has the mark).
mark=1000.$$
traces() {
    ls /run/netns | grep "^$name-"
    [ -e "$lab" ] && echo "$lab"
    for p in /proc/[0-9]*; do
        [ "$p" = /proc/$$ ] || tr '\0' ' ' <"$p/cmdline" | grep -F -e "$lab" -e "sleep $mark"
    done
    return 0
} 2>/dev/null
no_traces() {
    local left
    left=$(traces)
    if [ -z "$left" ]; then ok "$1"; else not_ok "$1" "$left"; fi
}

at_end '[ ! -e "$lab" ] || W down'

# --- up and working ------------------------------------------------------------
if ! W up --guests 4 --vlan 10,20 >"$dir/up" 2>&1; then
    not_ok up "$(tail -n 20 "$dir/up")"
    no_traces up-failure-leaves-nothing
    exit 1
fi
ok up
check status-json \
    status '(sorted(d) == ["guests", "hosts"] and [h["name"] for h in d["hosts"]] == ["h1"]
             and [g["name"] for g in d["guests"]] == ["g1", "g2", "g3", "g4"]
             and [g["vlan"] for g in d["guests"]] == [10, 20, 10, 20]
             and all(g["host"] == "h1" and g["ip"] and g["mac"] and g["link"] == "up"
                     for g in d["guests"]))'
g2=$(status 'd["guests"][1]["ip"]') g3=$(status 'd["guests"][2]["ip"]')
check ping-same-vlan pings g1 "$g3"
refuse ping-other-vlan pings g1 "$g2"
check ovs-vsctl W exec h1 -- ovs-vsctl show
check ovs-ofctl W exec h1 -- ovs-ofctl dump-flows xenbr0
check ovs-appctl W exec h1 -- ovs-appctl version
refuse exec-exit-code W exec g1 -- false
refuse exec-unknown W exec g99 -- true
check exec-options-behind-the-name "$weft" lab exec h1 --name "$name" --dir "$lab" -- ovs-vsctl show

refuse second-up-refused W up
grep -q 'a lab is up since' "$dir/said" && ok second-up-says-why ||
    not_ok second-up-says-why "$(cat "$dir/said")"

# --- the switch dies -----------------------------------------------------------
changes() { W exec g1 -- cat /sys/class/net/eth0/carrier_changes; }
carrier=$(changes)
end=$((SECONDS + 20))
until status 'd["hosts"][0]["spare_pid"]' >/dev/null || [ $SECONDS -ge $end ]; do
    read -rt 0.1 <> <(:)
done
victim=$(status 'd["hosts"][0]["vswitchd_pid"]') spare=$(status 'd["hosts"][0]["spare_pid"]')
kill -9 "$victim"
check switch-killed-traffic-resumes reaches g1 "$g3" 20
[ "$spare" != 0 ] && [ "$(status 'd["hosts"][0]["vswitchd_pid"]')" = "$spare" ] &&
    [ "$(status 'd["hosts"][0]["restarts"]')" = 1 ] &&
    ok spare-takes-over || not_ok spare-takes-over "not $spare: $(status 'd["hosts"][0]')"
[ "$(changes)" = "$carrier" ] && ok switch-killed-no-link-change ||
    not_ok switch-killed-no-link-change "carrier changed from $carrier to $(changes)"
refuse switch-killed-vlans-hold pings g1 "$g2"

# --- down ---------------------------------------------------------------------
W exec g1 -- sleep $mark &
sleeper=$!
until pgrep -f "^sleep $mark" >/dev/null || ! kill -0 $sleeper 2>/dev/null; do
    read -rt 0.05 <> <(:)
done
check down W down
wait $sleeper 2>/dev/null
no_traces down-leaves-nothing
check down-twice W down

# --- two hosts ------------------------------------------------------------------
#   g1 ── h1 ── wire ── h2 ── g3      VLAN 10; g4 on h2 has VLAN 20
if W up --hosts 2 --guests 2 --vlan 10,20 >"$dir/up" 2>&1; then
    check two-hosts-same-vlan pings g1 10.0.0.3
    refuse two-hosts-other-vlan pings g1 10.0.0.4
else
    not_ok two-hosts "$(tail -n 20 "$dir/up")"
fi
W down >/dev/null 2>&1
no_traces two-hosts-leave-nothing

# --- a host with the distribution's switch ---------------------------------------
#   g1 ── h1 (weft) ── wire ── h2 (ovs-vswitchd, netdev) ── g3
transfer() { # bytes from guest $1 to guest $2 at address $3 arrive whole
    W exec "$2" -- sh -c "nc -l -p 7000 </dev/null | wc -c" >"$dir/got" &
    local listener=$!
    W exec "$1" -- sh -c "for i in \$(seq 50); do head -c 3000000 /dev/zero |
        nc -q 1 -w 5 $3 7000 2>/dev/null && exit; ping -q -c 1 -W 1 $3 >/dev/null; done; exit 1"
    local sent=$?
    wait $listener
    [ $sent = 0 ] && [ "$(cat "$dir/got")" = 3000000 ]
}
if ! stock=$(tests/stock_ovs.sh 2>"$dir/out"); then
    echo "skip lab/stock-host: $(tail -n 1 "$dir/out")"
elif W up --hosts 2 --guests 2 --vlan 10,20 --stock 1 --stock-vswitchd "$stock" >"$dir/up" 2>&1; then
    check stock-host-same-vlan pings g1 10.0.0.3
    refuse stock-host-other-vlan pings g1 10.0.0.4
    check stock-host-tcp-to transfer g1 g3 10.0.0.3
    check stock-host-tcp-from transfer g3 g1 10.0.0.1
else
    not_ok stock-host "$(tail -n 20 "$dir/up")"
fi
W down >/dev/null 2>&1
no_traces stock-host-leaves-nothing

# --- the supervisor dies ---------------------------------------------------------
W up --guests 1 --no-spare >"$dir/up" 2>&1 || not_ok up-again "$(tail -n 20 "$dir/up")"
victim=$(status 'd["hosts"][0]["vswitchd_pid"]')
kill -9 "$victim"
restarted() {
    local end=$((SECONDS + 20)) pid
    until [ "$(status 'd["hosts"][0]["restarts"]')" -ge 1 ] &&
        pid=$(status 'd["hosts"][0]["vswitchd_pid"]') && [ "$pid" != "$victim" ]; do
        [ $SECONDS -lt $end ] || {
            W status --json | head -c 400
            return 1
        }
        read -rt 0.1 <> <(:)
    done
    return 0 # not what read said
}
check no-spare-switch-restarted restarted
kill_supervisor
refuse dead-lab-status W status
check dead-lab-down W down
no_traces dead-lab-down-leaves-nothing

# A new lab clears what a dead one left.
W up --guests 1 >"$dir/up" 2>&1 || not_ok up-third "$(tail -n 20 "$dir/up")"
kill_supervisor
W up --guests 1 >"$dir/out" 2>&1 && grep -q 'cleaned up what a dead lab left' "$dir/out" &&
    ok leftover-cleaned || not_ok leftover-cleaned "$(cat "$dir/out")"
W down >/dev/null 2>&1
no_traces leftover-leaves-nothing

# --- dying in the middle ---------------------------------------------------------
# The supervisor is killed after 0, 1, ... lines of progress.
for lines in 0 1 2 3 4; do
    : >"$dir/up"
    W up --guests 2 >"$dir/up" 2>&1 &
    starter=$!
    while [ "$(wc -l <"$dir/up")" -lt "$lines" ] || [ ! -s "$lab/state.json" ]; do
        kill -0 $starter 2>/dev/null || break
    done
    [ -s "$lab/state.json" ] && kill -9 "$(supervisor)" 2>/dev/null
    wait $starter
    W down >/dev/null 2>&1
    no_traces "killed-after-$lines-lines"
done

# A failing part rolls everything back and says why.
refuse bad-datapath W up --datapath 0123456789012345678
W up --pmd-cpu-mask zz >"$dir/out" 2>&1
[ $? -eq 2 ] && ok usage-exit-code || not_ok usage-exit-code "$(cat "$dir/out")"
bin=$(realpath "$(dirname "$weft")")
mkdir "$dir/broken" "$dir/broken/bin"
ln -s "$bin"/* "$dir/broken/bin/"
ln -s "$(ls -d "$bin/../share" "$bin/../../share" 2>/dev/null | head -n 1)" "$dir/broken/share"
ln -sf /bin/false "$dir/broken/bin/weft-vswitchd"
WEFT_BIN=$dir/broken/bin W up >"$dir/out" 2>&1 &&
    not_ok broken-switch "a lab without a switch came up"
grep -q 'weft-vswitchd of h1 exited with status 1' "$dir/out" && ok broken-switch-says-why ||
    not_ok broken-switch-says-why "$(cat "$dir/out")"
no_traces broken-switch-rolled-back

finish
