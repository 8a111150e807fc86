#!/bin/bash
# A VM with open connections moves between the hosts of a pool, to and fro.
#
#   h1 (weft-xapid)                 h2 (weft-xapid)
#    g1 10.1.0.1: 50 connections     g2 10.1.0.2: policy denies it everything,
#       each way, a download             and it tries all the time
#    cell1 10.1.200.1  <------------>
#
# No connection breaks, no byte differs, and the denied guest gets no answer while the
# allowed one, which tries the same, does.  MIGRATE_MOVES says how many moves (20 by
# hand; fewer by default, for time).
set -u
cd "$(dirname "$0")/../.." || exit 1
suite=migrate
. tests/smoke/lib.bash
need_root "network namespaces"
moves=${MIGRATE_MOVES:-4}
name=mig$$
lab=$dir/l
cell=10.1.200.1

W() { "$bin/weft" lab "$1" --name "$name" --dir "$lab" "${@:2}"; }
pool() { W exec pool -- weft "$@"; }
probe() { W exec g1 -- env CELL_GUEST=$cell CELL_US=10.1.0.1 python3 tests/smoke/cell_probe.py "$@"; }
at_end 'W down'
W up --pool --hosts 2 --guests 1 --cells 1 >"$dir/up" 2>&1 || give_up "$(tail -n 5 "$dir/up")"
ok up
uuid=$(pool vm show cell1 --json | sed -n 's/.*"uuid": *"\([^"]*\)".*/\1/p')

# --- policy ---------------------------------------------------------------------
deny() {
    pool policy add fence scope=vm vm=cell1 author=test &&
        pool rule add fence/g2 order=1 direction=in action=deny remote_cidrs=10.1.0.2 \
            part=mandatory
}
check a-rule-denies-one-guest deny
check the-other-one-is-served until_true 10 probe get 100000 7
tries() { # GUEST FILE
    W exec "$1" -- python3 tests/smoke/migrate_probe.py $cell "$dir/$2" >/dev/null 2>&1 &
}
tries g1 allowed
tries g2 denied

# --- traffic --------------------------------------------------------------------
probe traffic "$dir/traffic" >"$dir/traffic.log" 2>&1 &
check fifty-connections-each-way until_true 20 probe busy "$dir/traffic"
W exec g1 -- curl -sf "http://$cell/dirty?rate=20&set=10" >/dev/null

# --- moves ----------------------------------------------------------------------
move_to_and_fro() {
    local i
    for ((i = 0; i < moves; i++)); do
        pool vm migrate cell1 "h$((2 - i % 2))" --json >"$dir/move" 2>&1 ||
            { tail -n 1 "$dir/move" | cut -c 1-600; return 1; }
        tail -n 1 "$dir/move" >>"$dir/moves"
        uniq -d "$dir/move" >>"$dir/told-twice"
        probe alive "$dir/traffic" || return 1
    done
}
check "moves-to-and-fro" move_to_and_fro
told_once() { [ -e "$dir/told-twice" ] && [ ! -s "$dir/told-twice" ]; }
check progress-is-told-when-it-changes told_once
check no-connection-broke probe end "$dir/traffic"
check nothing-of-the-guest-is-stale probe guest "$moves"
touch "$dir/allowed.end" "$dir/denied.end"

numbers() {
    python3 - "$dir/moves" <<'PY'
import json, math, sys
moves = [json.loads(json.loads(line)["other_config"]["weft-stats"])
         for line in open(sys.argv[1], encoding="utf-8")]
at = lambda ms, part: ms[max(0, math.ceil(part * len(ms)) - 1)]
def tell(what, ms):
    ms.sort()
    print(f"# {len(ms)} moves under load: {what} p50 {at(ms, .5):.1f} ms, p99 {at(ms, .99):.1f} ms")
tell("blackout", [move["blackout_ms"] for move in moves])
for part in "pause", "final", "commit":
    tell(f"of it {part}", [move["phases_ms"][part] for move in moves])
tell("of the vif", [vif["blackout_ms"] for move in moves for vif in move["vifs"] if "blackout_ms" in vif])
print("".join(f"# not carried: {move['lost']}\n" for move in moves if move["lost"]), end="")
PY
}
check blackouts-are-told-also-of-the-vif numbers
grep '^#' "$dir/said"
tried() { # FILE EXPRESSION
    until_true 10 test -s "$dir/$1"
    python3 -c 'import json,sys
s = json.load(open(sys.argv[1])); print(s); sys.exit(not eval(sys.argv[2], s))' "$dir/$1" "$2"
}
check the-allowed-guest-was-answered tried allowed "echoes > 100 and connected > 20"
check the-denied-one-never tried denied \
    "datagrams > 100 and connections > 5 and not echoes and not connected"

# One ran at a time: the logs of both hosts' processes together, in order of time.
merged() {
    cat "$lab"/h*/xapi/cell-"$uuid".runs | sort -n -k 3 >"$dir/runs"
    python3 tests/smoke/cell_probe.py runs "$dir/runs" "$moves"
}
check one-runs-at-a-time merged
check status-knows-where python3 -c 'import json,sys
cells = json.loads(sys.stdin.read())["cells"]
assert [(c["name"], c["state"], c["host"]) for c in cells][0] == (
    "cell1", "Running", "h" + sys.argv[1]), cells' "$((1 + moves % 2))" < <(W status --json)

# --- a switch dies ----------------------------------------------------------------
switch_of_h1() { W status --json | python3 -c 'import json,sys
print(json.load(sys.stdin)["hosts"][0][sys.argv[1]])' "$1"; }
obeys_again() {
    [ "$(switch_of_h1 restarts)" -gt 0 ] && [ "$(pool host list | grep -c " yes ")" = 2 ] &&
        pool vm migrate cell1 "h$((2 - moves % 2))" && probe get 100000 3
}
kill -KILL "$(switch_of_h1 vswitchd_pid)"
check the-switch-that-takes-over-obeys-and-takes-a-vm until_true 30 obeys_again

# --- the end --------------------------------------------------------------------
down() {
    W down && [ ! -e "$lab" ] && ! grep -lz "WEFT_PROC=$lab/" /proc/[0-9]*/environ 2>/dev/null
}
check down-leaves-nothing down
finish
