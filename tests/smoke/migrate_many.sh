#!/bin/bash
# Many migrations in a lab with a pool: eight at once, one VM twice, a host
# evacuated two at a time, weft-xapid killed meanwhile.  Real cells, real streams.
# What ran where comes from the cells' own run logs: no two of a VM ever overlap.
#
#   h1: cell1-3      h2: cell4-6      h3: cell7-9
# shellcheck disable=SC2317,SC2016 # called by name; evaluated at the end
set -u
cd "$(dirname "$0")/../.." || exit
export suite=migrate_many
# shellcheck source=tests/smoke/lib.bash
. tests/smoke/lib.bash
need_root "network namespaces"
weft=$bin/weft
lab=(--name "mm$$" --dir "$dir/lab")
in_pool() { "$weft" lab exec "${lab[@]}" pool -- "$@"; }
at_end '"$weft" lab down "${lab[@]}"'

"$weft" lab up "${lab[@]}" --pool --hosts 3 --guests 0 --cells 3 >"$dir/up" 2>&1 ||
    give_up "no lab: $(tail -n 3 "$dir/up")"

vms() { in_pool "$weft" vm list --json; }
host_of() { vms | jq_py "next(v['resident_on'] for v in vms if v['name'] == '$1')"; }
on() { vms | jq_py "sum(v.get('resident_on') == '$1' for v in vms)"; }
all_running() { [ "$(vms | jq_py "sum(v.get('power_state') == 'Running' for v in vms)")" = 9 ]; }
jq_py() {
    /usr/bin/python3 -c "import json, sys
vms = json.load(sys.stdin)
vms = vms if isinstance(vms, list) else vms['vms']
print($1)"
}
check all-cells-run until_true 30 all_running

eight_at_once() {
    local i pids=() to=(x h2 h2 h2 h3 h3 h3 h1 h1)
    for i in 1 2 3 4 5 6 7 8; do
        in_pool "$weft" vm migrate "cell$i" "${to[i]}" >"$dir/said.$i" 2>&1 &
        pids+=($!)
    done
    for i in 1 2 3 4 5 6 7 8; do
        wait "${pids[i - 1]}" || { echo "cell$i: $(<"$dir/said.$i")"; return 1; }
        [ "$(host_of "cell$i")" = "${to[i]}" ] || { echo "cell$i is on $(host_of "cell$i")"; return 1; }
    done
}
check eight-at-once eight_at_once

# The first one is held back by its bandwidth; the second is refused, at either host.
one_twice() {
    local pid said
    in_pool "$weft" vm migrate cell1 h1 --limit 40 >"$dir/first" 2>&1 &
    pid=$!
    until_true 20 moving cell1 || return 1
    for host in h1 h3; do
        said=$(in_pool "$weft" vm migrate cell1 "$host" 2>&1) && { echo "$host: a second one"; return 1; }
        [[ $said == *OTHER_OPERATION_IN_PROGRESS* ]] || { echo "$said"; return 1; }
    done
    wait "$pid" || { cat "$dir/first"; return 1; }
    [ "$(host_of cell1)" = h1 ]
}
moving() { [ "$(vms | jq_py "next(bool(v.get('migration')) for v in vms if v['name'] == '$1')")" = True ]; }
check one-vm-twice one_twice

# Asked for while it moves; its memory follows.
postcopy_on_request() {
    local pid said
    in_pool "$weft" vm migrate cell2 h3 --limit 4 --postcopy --json >"$dir/first" 2>&1 &
    pid=$!
    until_true 20 moving cell2 || return 1
    in_pool "$weft" vm postcopy cell2 || return 1
    wait "$pid" || { tail -n 1 "$dir/first"; return 1; }
    [ "$(host_of cell2)" = h3 ] || { echo "cell2 is on $(host_of cell2)"; return 1; }
    tail -n 1 "$dir/first" | /usr/bin/python3 -c 'import json, sys
stats = json.loads(json.load(sys.stdin)["other_config"]["weft-stats"])
assert stats["postcopy"], stats' || return 1
    said=$(in_pool "$weft" vm postcopy cell2 2>&1) && { echo "without a migration"; return 1; }
    [[ $said == *"no migration of the VM is under way"* ]] || { echo "$said"; return 1; }
}
check postcopy-on-request postcopy_on_request

evacuated() {
    local pid most=0 now
    in_pool "$weft" host evacuate h3 --at-once 2 >"$dir/evacuation" 2>&1 &
    pid=$!
    while smoke_alive "$pid"; do
        now=$(vms | jq_py "sum(bool(v.get('migration')) for v in vms)")
        ((now > most)) && most=$now
    done
    wait "$pid" || { cat "$dir/evacuation"; return 1; }
    [ "$(on h3)" = 0 ] || { echo "$(on h3) left"; return 1; }
    ((most >= 1 && most <= 2)) || { echo "$most at once"; return 1; }
}
check evacuated-two-at-once evacuated

# The source's weft-xapid dies in the middle and is started again by the lab.
survives_xapid() {
    local pid xapid
    in_pool "$weft" vm migrate cell1 h3 --limit 40 --no-wait >"$dir/first" 2>&1 || return 1
    until_true 20 moving cell1 || return 1
    xapid=$(cat "$dir/lab/h1/run/weft-xapid.pid")
    [ -n "$xapid" ] || { echo "no pid of weft-xapid"; return 1; }
    kill -KILL "$xapid"
    until_true 60 not moving cell1 || return 1
    [ "$(host_of cell1)" = h3 ]
}
check xapid-killed-meanwhile survives_xapid
check all-still-run all_running

# Every port of a vif goes and comes back, by XenAPI, wherever it is.
plugged() { "$weft" lab exec "${lab[@]}" "$1" -- ovs-vsctl list-ports xenbr0 | grep -c '^vif'; }
unplug_and_plug() {
    [ "$(plugged h1)" -gt 0 ] || { echo "no vifs on h1"; return 1; }
    /usr/bin/python3 - "$dir"/lab/h?/run/weft-xapid.sock <<'PY'
import http.client, json, socket, sys, time
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)
def call(at, method, *params):
    c = Unix(at)
    c.request("POST", "/jsonrpc", json.dumps({"jsonrpc": "2.0", "method": method, "id": 1,
              "params": params}), {"Content-Type": "application/json"})
    return json.loads(c.getresponse().read())
logins = {at: call(at, "session.login_with_password", "", "") for at in sys.argv[1:]}
at, session = next((at, a["result"]) for at, a in logins.items() if "result" in a)
def x(method, *params):
    answer = call(at, method, session, *params)
    assert "result" in answer, (method, answer)
    return answer["result"]
h1 = x("host.get_by_name_label", "h1")[0]
for vm in x("host.get_resident_VMs", h1):
    for vif in x("VM.get_VIFs", vm):
        for _ in range(200):
            if x("VIF.get_currently_attached", vif):
                break
            time.sleep(0.1)
        x("VIF.unplug", vif)
        assert not x("VIF.get_currently_attached", vif)
        again = call(at, "VIF.unplug", session, vif)["error"]["message"]
        assert again == "DEVICE_ALREADY_DETACHED", again
        x("VIF.plug", vif)
        assert x("VIF.get_currently_attached", vif)
PY
}
check vifs-unplugged-and-plugged unplug_and_plug

one_at_a_time() {
    /usr/bin/python3 - "$dir"/lab/h?/xapi/cell-*.runs <<'PY'
import os, sys
spans = {}
for path in sys.argv[1:]:
    start = None
    for line in open(path):
        word, _, ns, *_ = line.split()
        if word == "start":
            start = int(ns)
        elif start is not None:
            spans.setdefault(os.path.basename(path), []).append((start, int(ns)))
            start = None
    if start is not None:
        spans.setdefault(os.path.basename(path), []).append((start, 1 << 62))
assert len(spans) == 9, f"{len(spans)} guests"
moves = 0
for vm, ran in spans.items():
    ran.sort()
    moves += len(ran) - 1
    for (a, b), (c, d) in zip(ran, ran[1:]):
        assert b <= c, f"{vm} ran twice: {a}..{b}, {c}..{d}"
    assert ran[-1][1] == 1 << 62, f"{vm} does not run"
assert moves >= 12, f"{moves} moves"
PY
}
check never-two-running one_at_a_time
finish
