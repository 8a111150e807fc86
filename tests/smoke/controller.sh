#!/bin/bash
# The controller as a whole: pool database, weft-controllerd and two switches,
# ours (A) and stock ovs-vswitchd (B), with dummy devices.
#
#   pool.db -- weft-controllerd --+-- A: a1 (web, 10.0.0.1), a2 (db, 10.0.0.2)
#              (rest socket)      +-- B: b1 (web, 10.0.0.3), b2 (other tenant)
#
# Reliability tests 29 (killed at every push step: old rules or new), 33 (each
# daemon killed) and 35 (controller absent).  Everything lives in a private
# folder; processes end with the script.
# shellcheck disable=SC2016,SC2317 # commands that check and until_true evaluate
set -u
cd "$(dirname "$0")/../.." || exit 1
suite=controller
if [ -z "${CONTROLLER_TEST_INSIDE:-}" ] && [ "$(id -u)" -eq 0 ]; then
    # Whatever happens in there ends with it.
    CONTROLLER_TEST_INSIDE=1 exec unshare --pid --fork --kill-child --mount-proc "tests/smoke/${0##*/}" "$@"
fi
. tests/smoke/lib.bash
work=$dir
stock=$PWD/build/ovs/build/vswitchd/ovs-vswitchd
[ -x "$stock" ] || stock=$bin/weft-vswitchd
declare -A pid=()
at_end 'kill -KILL "${pid[@]}"; wait'

# --- daemons ---------------------------------------------------------------------

on() { # FOLDER COMMAND...
    local d=$work/$1
    shift
    OVS_RUNDIR=$d OVS_LOGDIR=$d OVS_DBDIR=$d OVS_SYSCONFDIR=$d "$@"
}
start() { # NAME FOLDER COMMAND...: in the background, killed at the end
    local name=$1 d=$work/$2
    shift 2
    OVS_RUNDIR=$d OVS_LOGDIR=$d OVS_DBDIR=$d OVS_SYSCONFDIR=$d "$@" >>"$d/$name.out" 2>&1 &
    pid[$name]=$!
}
slay() { # NAME: SIGKILL
    kill -KILL "${pid[$1]}" 2>/dev/null
    wait "${pid[$1]}" 2>/dev/null
    unset "pid[$1]"
}
start_db() { # NAME
    rm -f "$work/$1/db.sock"
    start "db$1" "$1" "$bin/ovsdb-server" "$work/$1/conf.db" --remote="punix:$work/$1/db.sock" \
        --unixctl="$work/$1/db.ctl" --log-file -vconsole:off -vsyslog:off
    until_true 10 test -S "$work/$1/db.sock" || give_up "ovsdb-server does not start"
}
start_switch() { # HOST
    local program=$bin/weft-vswitchd
    [ "$1" = B ] && program=$stock
    rm -f "$work/$1/xenbr0.mgmt"
    start "switch$1" "$1" "$program" "unix:$work/$1/db.sock" --unixctl="$work/$1/ctl" \
        --enable-dummy=override --disable-system --disable-system-route --log-file -vconsole:off \
        -vsyslog:off
}
start_host() { # HOST
    mkdir "$work/$1"
    "$bin/ovsdb-tool" create "$work/$1/conf.db" "$PWD/build/share/vswitch.ovsschema"
    start_db "$1"
    vsctl "$1" --no-wait init
    start_switch "$1"
    vsctl "$1" add-br xenbr0 -- set bridge xenbr0 datapath_type=dummy || give_up "no bridge"
}
start_controller() { # NAME OPTION...
    local name=$1
    shift
    start "$name" pool "$bin/weft-controllerd" --db="unix:$work/pool/db.sock" --id="$name" \
        --unixctl="$work/pool/$name.ctl" --rest="unix:$work/pool/$name.rest" --audit-interval=0 \
        --log-file="$work/pool/$name.log" -vconsole:off -vsyslog:off "$@"
}
vsctl() { "$bin/ovs-vsctl" --db="unix:$work/$1/db.sock" --timeout=20 "${@:2}"; }
ofctl() { on "$1" "$bin/ovs-ofctl" -O OpenFlow15 --timeout=20 "${@:2}"; }
appctl() { "$bin/ovs-appctl" --target="$work/$1" --timeout=20 "${@:2}"; }

rest() { # METHOD PATH [FILE]: prints the answer; fails unless it is 2xx
    python3 - "$work/pool/${controller:-c1}.rest" "$@" <<'PY'
import http.client, socket, sys
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(sys.argv[1])
c = Unix("localhost")
body = open(sys.argv[4], "rb").read() if len(sys.argv) > 4 else None
c.request(sys.argv[2], sys.argv[3], body, {"Content-Type": "application/json"})
r = c.getresponse()
print(r.read().decode())
sys.exit(r.status // 100 != 2)
PY
}
status() { appctl "pool/${controller:-c1}.ctl" weft-controllerd/status "$@"; }

# --- the pool ----------------------------------------------------------------------

vif() { # NAME VM NETWORK NUMBER
    printf '{"name":"%s","vm":"%s","network":"%s","mac":"00:16:3e:00:00:0%d",' "$1" "$2" "$3" "$4"
    printf '"xs_uuid":"00000000-0000-0000-0000-00000000000%d",' "$4"
    printf '"locking_mode":"locked","ipv4_allowed":["10.0.0.%d"]}' "$4"
}
rule() { # NAME ORDER DIRECTION PORTS ENABLED
    printf '{"name":"%s","order":%d,"direction":"%s","action":"allow",' "$1" "$2" "$3"
    printf '"protocol":"tcp","ports":["%s"],"enabled":%s}' "$4" "${5:-true}"
}
# What may be reached: port 80, a second rule's PORTS and, if ENABLED is true, a
# third's.  The same objects each time, so that the same flows come of them.
document() { # PORTS ENABLED
    cat <<EOF
{"version": 1,
 "hosts": [{"name": "A", "ovsdb": "unix:$work/A/db.sock", "tunnel_ip": "127.0.0.1"},
           {"name": "B", "ovsdb": "unix:$work/B/db.sock", "tunnel_ip": "127.0.0.2"}],
 "tenants": [{"name": "t1"}, {"name": "t2"}],
 "networks": [{"name": "n1", "tenant": "t1", "type": "overlay", "vni": 7},
              {"name": "n2", "tenant": "t2", "type": "overlay", "vni": 8}],
 "vms": [{"name": "web", "tenant": "t1"}, {"name": "db", "tenant": "t1"},
         {"name": "other", "tenant": "t2"}],
 "vifs": [$(vif a1 web n1 1), $(vif a2 db n1 2), $(vif b1 web n1 3), $(vif b2 other n2 4)],
 "policies": [{"name": "base", "author": "test", "scope": "pool",
   "rules": [$(rule out 1 out 1-65535), $(rule in1 2 in 80), $(rule in2 3 in "$1"),
             $(rule in3 4 in 22 "$2")]}]}
EOF
}
add_vif_port() { # HOST NAME OFPORT NUMBER
    vsctl "$1" add-port xenbr0 "$2" -- set interface "$2" ofport_request="$3" \
        external_ids:xs-vif-uuid="00000000-0000-0000-0000-00000000000$4" \
        external_ids:attached-mac="00:16:3e:00:00:0$4"
}
# Everything that a switch does with its flows; counters and ages apart.
flows() { ofctl "$1" dump-flows --no-stats xenbr0 | grep -v '^OFPST' | sort; }
applied() { # GENERATION: on both hosts
    [ "$(status | grep -c "generation: applied $1, wanted $1\$")" -eq 2 ]
}
generation() { status | sed -n 's/^pool database: connected, generation //p'; }
# States a document and waits until both switches have it.
state() { # PORTS ENABLED
    local g
    document "$@" >"$work/document.json"
    rest POST /v1/import "$work/document.json" >"$work/import" || { cat "$work/import"; return 1; }
    g=$(generation)
    until_true 10 applied "$g"
}
# What becomes of a TCP SYN.
trace() { # HOST IN_PORT FROM TO PORT
    on "$1" "$bin/ovs-appctl" --target="$work/$1/ctl" ofproto/trace xenbr0 --ct-next trk,new \
        "in_port=$2,tcp,dl_src=00:16:3e:00:00:0$3,dl_dst=00:16:3e:00:00:0$4,nw_src=10.0.0.$3,nw_dst=10.0.0.$4,nw_ttl=64,tp_src=30000,tp_dst=$5" \
        >"$work/trace"
    sed -n 's/^Datapath actions: //p' "$work/trace" | tail -n 1
}
to_port() { # HOST PORT: the datapath's action for it, after the commit
    appctl "$1/ctl" dpif/show | sed -n "s|^ *$2 [0-9]*/\([0-9]*\):.*|ct(commit,*),\1|p"
}
passes() { # ACTION HOST IN_PORT FROM TO PORT
    local got
    got=$(trace "${@:2}")
    echo "traced: $got"
    # shellcheck disable=SC2053 # a pattern
    [[ $got == $1 ]]
}
sent() { status "$1" | sed -n 's/.* \([0-9]*\) sent in .*/\1/p'; }
connected() { [ "$(status | grep -c ': connected, openflow ready, ovsdb ready')" -eq 2 ]; }

mkdir "$work/pool"
"$bin/ovsdb-tool" create "$work/pool/conf.db" "$PWD/build/share/pool.ovsschema"
start_db pool
start_host A
start_host B
add_vif_port A a1 11 1
add_vif_port A a2 12 2
add_vif_port B b1 11 3
add_vif_port B b2 12 4

start_controller c1
check "starts: answers on its REST socket" until_true 10 rest GET /v1/status
check "first: a document reaches both switches" state 443 false
check "first: host A is ours, host B stock" eval \
    'status | grep -q "switch: weft" && { [ "$stock" = "$bin/weft-vswitchd" ] || status B | grep -q "switch: ovs"; }'
check "policy: allowed within a host" passes "$(to_port A a2)" A 11 1 2 80
check "policy: what no rule allows is denied" passes drop A 11 1 2 22
check "policy: across hosts by tunnel" eval '
    passes "$(to_port A weft-vxlan)" A 11 1 3 443 && grep -q "set_field:127.0.0.2->tun_dst" "$work/trace"'
check "policy: another tenant is out of reach" passes drop A 11 1 4 80
check "policy: a spoofed source is dropped" passes drop A 11 2 3 80

# --- changes ------------------------------------------------------------------------------

# shellcheck disable=SC2034 # by the next check
before=$(sent A)
check "change: one rule more is a few flows" state 443 true
check "change: and nothing else" eval '[ $(($(sent A) - before)) -le 12 ] || { sent A; echo "$before"; false; }'
check "change: in force" passes "$(to_port A a2)" A 11 1 2 22

vsctl A add-port xenbr0 stranger -- set interface stranger ofport_request=13
check "vif: an unknown port is dropped" passes drop A 13 5 2 80
check "drift: the switch's own administrator is overruled" eval '
    ofctl A del-flows xenbr0 table=50; ofctl A add-flow xenbr0 table=60,priority=9999,actions=drop
    appctl pool/c1.ctl weft-controllerd/audit A
    until_true 5 eval "status A | grep -Eq \"compared .* [1-9][0-9]* missing, 1 foreign\""
    appctl pool/c1.ctl weft-controllerd/audit A
    until_true 5 eval "status A | grep -q \"0 missing, 0 foreign\""'

# --- absent (35) -----------------------------------------------------------------------------

flows A >"$work/A.before"
flows B >"$work/B.before"
unchanged() { flows A | diff "$work/A.before" - && flows B | diff "$work/B.before" -; }
slay c1
vsctl B add-port xenbr0 late -- set interface late ofport_request=15 \
    external_ids:attached-mac=00:16:3e:00:00:09
check "absent: forwarding stays" eval 'unchanged && passes "$(to_port A a2)" A 11 1 2 80'
check "absent: a new vif is denied" passes drop B 15 9 3 80
check "absent: fail mode is secure" eval '[ "$(vsctl A get-fail-mode xenbr0)" = secure ]'
start_controller c1
check "absent: back until_true 5 s" until_true 5 connected
check "absent: nothing had to be sent" eval '[ "$(sent A) $(sent B)" = "0 0" ] && unchanged'

# --- killed at every step (29) -------------------------------------------------------------------

state 443 false || give_up "the old rules are not applied"
flows A >"$work/A.old"
flows B >"$work/B.old"
state 8080-8090 true || give_up "the new rules are not applied"
flows A >"$work/A.new"
flows B >"$work/B.new"
document 443 false >"$work/old.json"
document 8080-8090 true >"$work/new.json"
if cmp -s "$work/A.old" "$work/A.new"; then give_up "old and new do not differ"; fi
old_or_new() {
    local h
    for h in A B; do
        flows "$h" >"$work/$h.now"
        cmp -s "$work/$h.now" "$work/$h.old" || cmp -s "$work/$h.now" "$work/$h.new" ||
            { echo "host $h has a mix"; diff "$work/$h.new" "$work/$h.now" | head -n 4; return 1; }
    done
}
dead() { ! kill -0 "${pid[c1]}" 2>/dev/null; }
# The database says new; the controller that brings it dies at a step.
killed_at() { # STEP
    local status=0
    slay c1
    start_controller c1
    until_true 10 connected && rest POST /v1/import "$work/old.json" >/dev/null &&
        until_true 10 applied "$(generation)" || return 1
    slay c1
    WEFT_TEST_KILL_AT=$1 start_controller c1
    until_true 10 eval 'dead || { connected && rest GET /v1/status; }' || return 1
    dead || rest POST /v1/import "$work/new.json" >/dev/null
    until_true 10 dead || { echo "it never came to this step"; status=1; }
    wait "${pid[c1]}" 2>/dev/null
    pause 0.1 # what was written last
    old_or_new || status=1
    return "$status"
}
for step in connected read compared open add:1 add:3 add:8 close closed commit barrier committed \
    confirmed; do
    check "killed at $step: old rules or new" killed_at $step
done
random_kills() {
    local i client
    for i in $(seq 12); do
        start_controller c1
        until_true 10 eval 'connected && rest GET /v1/status' || return 1
        rest POST /v1/import "$work/$([ $((i % 2)) = 0 ] && echo old || echo new).json" \
            >/dev/null 2>&1 &
        client=$!
        pause "0.0$((RANDOM % 9))$((RANDOM % 9))"
        slay c1
        wait "$client"
        old_or_new || return 1
    done
}
slay c1
check "killed 12 times at random: old rules or new" random_kills
start_controller c1
check "killed: the last word is applied in the end" eval \
    'until_true 10 connected && rest POST /v1/import "$work/new.json" && until_true 10 applied "$(generation)" &&
     flows A | diff "$work/A.new" - && flows B | diff "$work/B.new" -'

# --- everybody else is killed (33) ------------------------------------------------------------------

for h in A B; do
    slay switch$h
    until_true 5 eval '! connected'
    start_switch $h
    check "switch $h killed: its flows are back until_true 5 s" until_true 5 eval \
        "connected && flows $h | cmp - $work/$h.new"
done
slay dbA
start_db A
check "database of A killed: connected again until_true 5 s" until_true 5 connected
slay dbpool
check "pool database killed: hosts stay connected" connected
start_db pool
check "pool database back: nothing is lost" eval 'until_true 10 eval "status | grep -q database:.connected" &&
    flows A | cmp - "$work/A.new" && flows B | cmp - "$work/B.new"'

# --- two controllers ------------------------------------------------------------------------------------

start_controller c2
leads() { # NAME HOSTS: it leads so many, and they are in step
    controller=$1 status >"$work/$1.status"
    grep -q "^hosts: leads $2, shared by" "$work/$1.status" &&
        [ "$(grep -c ': connected, openflow ready, ovsdb ready' "$work/$1.status")" -eq "$2" ]
}
unmoved() { flows A | cmp - "$work/A.new" && flows B | cmp - "$work/B.new"; }
check "second controller: each leads one host" until_true 10 eval 'leads c1 1 && leads c2 1'
check "second controller: changes nothing that is right" eval 'unmoved &&
    [ "$(($(controller=c2 sent A) + $(controller=c2 sent B)))" = 0 ]'
check "second controller: both bring a change, either one tells" eval '
    rest POST /v1/import "$work/old.json" && g=$(generation) &&
    until_true 10 eval "controller=c2 rest GET \"/v1/wait?generation=$g&timeout=1\" | grep -q true" &&
    flows A | cmp - "$work/A.old" && flows B | cmp - "$work/B.old" &&
    rest POST /v1/import "$work/new.json" && until_true 10 unmoved'
kill -STOP "${pid[c1]}"
check "second controller: takes over until_true 6 s" until_true 6 leads c2 2
rest_c2() { controller=c2 rest "$@"; }
check "second controller: what it states" eval '
    rest_c2 POST /v1/import "$work/old.json" && until_true 10 eval "flows A | cmp - \"$work/A.old\" &&
    flows B | cmp - \"$work/B.old\""'
kill -CONT "${pid[c1]}"
# It believes for a moment to lead; the switch knows better.
check "second controller: one that stood still changes nothing, and has its part again" eval '
    same=yes
    for i in 1 2 3 4 5 6 7 8 9 10; do
        flows A | cmp - "$work/A.old" && flows B | cmp - "$work/B.old" || same=no
    done
    [ $same = yes ] && until_true 10 eval "leads c1 1 && leads c2 1" && flows A | cmp - "$work/A.old"'
slay c1
check "second controller: takes over from a dead one until_true 6 s" until_true 6 leads c2 2
start_controller c1
check "second controller: shares again when it is back" until_true 10 eval 'leads c1 1 && leads c2 1'

check "exit: in order" eval 'appctl pool/c2.ctl exit && wait "${pid[c2]}"'
finish
