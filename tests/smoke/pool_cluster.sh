#!/bin/bash
# The pool database's servers (reliability test 30): a cluster of three and five
# ("pool_cluster.sh") or a pair ("pool_cluster.sh pair"), each server in a network
# namespace of its own, with controllers and a writer of numbered rows outside.
#
#   s1 .. s5 (10.99.0.1 ..) --- bridge, 10.99.0.254: controllers c1, c2, writer; switch H
#
# Servers are killed, stand still, are cut off, join and leave; no row that was
# acknowledged may be missing or be counted twice, and H obeys one controller.
# Everything ends with the script: it has namespaces of its own.
# shellcheck disable=SC2016,SC2317,SC2034 # commands that check and until_true evaluate
set -u
cd "$(dirname "$0")/../.." || exit 1
part=${1:-cluster}
suite=pool_$part
if [ -z "${POOL_CLUSTER_INSIDE:-}" ] && [ "$(id -u)" -eq 0 ]; then
    POOL_CLUSTER_INSIDE=1 exec unshare --pid --fork --kill-child --mount-proc --net --mount \
        "tests/smoke/${0##*/}" "$@"
fi
. tests/smoke/lib.bash
need_root "network namespaces"
work=$dir
declare -A pid=()
at_end 'kill -KILL "${pid[@]}"'

# --- the machines ----------------------------------------------------------------

# What ip netns needs lives in /run, which is ours here.
mount -t tmpfs none /run || give_up "no /run of its own"
ip link set lo up
{ ip link add br0 type bridge; ip addr add 10.99.0.254/24 dev br0; ip link set br0 up; } ||
    give_up "no bridge"
for i in 1 2 3 4 5; do
    ip netns add "s$i"
    ip link add "v$i" type veth peer name eth0 netns "s$i"
    ip link set "v$i" master br0 up
    ip -n "s$i" link set lo up
    ip -n "s$i" addr add "10.99.0.$i/24" dev eth0
    ip -n "s$i" link set eth0 up
done
sever() { ip link set "v$1" down; }
heal() { ip link set "v$1" up; }

"$bin/weft" pki init "$work/pki" >/dev/null
for name in server controller; do
    "$bin/weft" pki host "$name" --dir "$work/pki" >/dev/null || give_up "no certificate"
done
tls() { # NAME
    printf '%s\n' --private-key="$work/pki/$1.key" --certificate="$work/pki/$1.crt" \
        --ca-cert="$work/pki/ca.crt"
}
mapfile -t server_tls < <(tls server)
mapfile -t controller_tls < <(tls controller)

db() { "$bin/weft" pool db "$@"; }
make() { # COMMAND N [--peer IP]
    db "$1" "$work/s$2" --name "s$2" --address "10.99.0.$2" "${server_tls[@]}" "${@:3}"
}
start() { # NAME COMMAND...: in the background, killed at the end
    local name=$1
    shift
    "$@" >>"$work/$name.out" 2>&1 &
    pid[$name]=$!
}
run() { start "s$1" ip netns exec "s$1" "$bin/weft" pool db run "$work/s$1"; }
slay() { # NAME: SIGKILL; a server's ovsdb-server ends with it
    disown "${pid[$1]}"
    kill -KILL "${pid[$1]}" 2>/dev/null
    while kill -0 "${pid[$1]}" 2>/dev/null; do
        pause 0.02
    done
    unset "pid[$1]"
}
both() { # SIGNAL N: to the server and what keeps it running
    local p
    for p in "${pid[s$2]}" $(cat "/proc/${pid[s$2]}/task/${pid[s$2]}/children"); do
        kill "-$1" "$p"
    done
}
ask() { # N OPERATION
    "$bin/ovsdb-client" --timeout=5 -vconsole:off transact "unix:$work/s$1/db.sock" \
        "[\"Weft_Pool\",$2]"
}
serves() { ask "$1" '{"op":"select","table":"Pool","where":[["closed","==",false]]}' | grep -q fence; }
tenants() { # N
    ask "$1" '{"op":"select","table":"Tenant","where":[],"columns":["name"]}' |
        grep -o '"name":"[^"]*"' | cut -d'"' -f4 | sort
}

# --- hosts' agents: certificates of another authority, a port of their own -----------------

"$bin/weft" pki init "$work/pki-hosts" >/dev/null
for name in h1 h2 h3; do
    "$bin/weft" pki host "$name" --dir "$work/pki-hosts" >/dev/null || give_up "no certificate"
done
as_host() { # NAME ADDRESS OPERATION...: one transaction
    local IFS=, name=$1 to=$2
    shift 2
    "$bin/ovsdb-client" --timeout=5 -vconsole:off --private-key="$work/pki-hosts/$name.key" \
        --certificate="$work/pki-hosts/$name.crt" --ca-cert="$work/pki/ca.crt" \
        transact "ssl:$to" "[\"Weft_Pool\",$*]"
}
may() { as_host "$@" >"$work/may" && cat "$work/may" && ! grep -q '"error"' "$work/may"; }
may_not() { as_host "$@" >"$work/may" && cat "$work/may" && grep -q '"permission error"' "$work/may"; }
set_row() { # TABLE COLUMN NAME ROW
    printf '{"op":"update","table":"%s","where":[["%s","==","%s"]],"row":{%s}}' "$@"
}
add_row() { printf '{"op":"insert","table":"%s","row":{%s}}' "$@"; } # TABLE ROW
drop_row() { printf '{"op":"delete","table":"%s","where":[["%s","==","%s"]]}' "$@"; }
hosts_are_stated() { # N
    ask "$1" "$(add_row Host '"name":"h1"'),$(add_row Host '"name":"h2"'),$(add_row Host '"name":"h3"'),
        $(add_row VM '"name":"at1","resident_on":"h1"'),$(add_row VM '"name":"at2","resident_on":"h2"'),
        $(add_row VM '"name":"off"'),$(add_row VM '"name":"told","destination":"h1"'),
        $(add_row Task '"name":"t2","host":"h2","status":"pending"'),
        $(add_row User '"name":"ada","role":"viewer"'),$(add_row Policy '"name":"p","scope":"pool"')" |
        tee "$work/stated" && ! grep -q '"error"' "$work/stated"
}
try() { # WHAT: the last word of it is the whole operation's outcome
    "$@" || { echo "$*"; return 1; }
}
host_writes_its_own() { # ADDRESS
    try may h1 "$1" "$(set_row Host name h1 '"xapi_seen":7,"xapi_address":"https://10.0.0.1"')" &&
        try may h1 "$1" "$(set_row VM name told '"resident_on":"h1","epoch":1,"destination":""')" &&
        try may h1 "$1" "$(set_row VM name told '"power_state":"Running"')" &&
        try may h1 "$1" "$(add_row Task '"name":"t1","host":"h1","status":"pending"')" &&
        try may h1 "$1" "$(set_row Task name t1 '"status":"success"')" &&
        try may h1 "$1" "$(drop_row Task name t1)"
}
# From h1 to h2; once the row has changed h1 has no say about the VM any more.
host_moves_its_own() { # ADDRESS
    try may h1 "$1" "$(set_row VM name at1 '"destination":"h2","migration":"m"')" \
        "$(add_row Migration '"migration":"m","from_host":"h1","to_host":"h2"')" &&
        try may h2 "$1" "$(set_row Migration migration m '"address":"10.0.0.2:1"')" &&
        try may h1 "$1" '{"op":"wait","timeout":0,"table":"VM","where":[["name","==","at1"]],"columns":["resident_on","epoch"],"until":"==","rows":[{"resident_on":"h1","epoch":0}]}' \
            "$(set_row VM name at1 '"resident_on":"h2","epoch":1,"destination":"","migration":""')" \
            '{"op":"commit","durable":true}' &&
        try until_true 5 may_not h1 "$1" "$(set_row VM name at1 '"resident_on":"h1"')" &&
        try may h1 "$1" "$(set_row Migration migration m '"status":"success"')" &&
        try may h2 "$1" "$(set_row VM name at1 '"resident_on":"","epoch":2')"
}
host_writes_no_more() { # ADDRESS
    local operation rule='"name":"r","part":"default","order":1,"direction":"in","action":"allow","ethertype":"any"'
    for operation in "$(set_row Pool name pool '"default_action":"allow"')" \
        "$(set_row Pool name pool '"coordinator":"h1"')" "$(set_row Pool name pool '"closed":true')" \
        "$(add_row User '"name":"eve","role":"admin"')" "$(set_row User name ada '"role":"admin"')" \
        "$(drop_row User name ada)" "$(drop_row Policy name p)" "$(add_row Rule "$rule")" \
        "$(set_row Policy name p '"author":"eve"')" "$(add_row Mirror '"name":"m","direction":"both","encapsulation":"gre"')" \
        "$(set_row Host name h2 '"xapi_address":"https://10.0.0.1"')" \
        "$(set_row Host name h1 '"ovsdb":"ssl:10.0.0.1:1"')" "$(add_row Host '"name":"h3"')" \
        "$(set_row VM name at2 '"resident_on":"h1"')" "$(set_row VM name off '"resident_on":"h1"')" \
        "$(set_row VM name told '"name":"mine"')" "$(drop_row VM name told)" \
        "$(add_row VM '"name":"new","resident_on":"h1"')" "$(set_row Task name t2 '"status":"success"')" \
        "$(add_row Task '"name":"x","host":"h2","status":"pending"')" "$(drop_row Task name t2)" \
        "$(add_row Migration '"migration":"x","from_host":"h2","to_host":"h3"')" \
        "$(set_row Controller name c1 '"lease":0')"; do
        try may_not h1 "$1" "$operation" || return 1
    done
    # Nor other databases, nor another schema for this one.
    "$bin/ovsdb-client" --timeout=5 -vconsole:off --private-key="$work/pki-hosts/h1.key" \
        --certificate="$work/pki-hosts/h1.crt" --ca-cert="$work/pki/ca.crt" transact "ssl:$1" \
        '["_Server",{"op":"update","table":"Database","where":[],"row":{"leader":false}}]' |
        tee "$work/may" && grep -q '"permission error"' "$work/may" || return 1
    ! "$bin/ovsdb-client" --timeout=5 -vconsole:off --private-key="$work/pki-hosts/h1.key" \
        --certificate="$work/pki-hosts/h1.crt" --ca-cert="$work/pki/ca.crt" convert "ssl:$1" \
        build/share/pool.ovsschema
}
# By its row, and by its certificate ("revoke" takes the files away, which h3 would not).
host_is_thrown_out() { # N ADDRESS
    local pki=$work/pki-hosts
    try until_true 10 may h3 "$2" "$read_pool" &&
        ask "$1" "$(drop_row Host name h3)" && ! as_host h3 "$2" "$read_pool" &&
        ask "$1" "$(add_row Host '"name":"h3"')" && try until_true 10 may h3 "$2" "$read_pool" &&
        cp "$pki/h3.key" "$pki/h3.crt" "$work" && "$bin/weft" pki revoke h3 --dir "$pki" &&
        cp "$work/h3.key" "$work/h3.crt" "$pki" && may h3 "$2" "$read_pool" &&
        db hosts "$work/s$1" "$pki/ca.crt" --crl "$pki/crl.pem" &&
        try until_true 10 may h1 "$2" "$read_pool" && ! as_host h3 "$2" "$read_pool" &&
        db hosts "$work/s$1" "$pki/ca.crt" | tee "$work/hosts" && grep -q "not on $pki/crl.pem" "$work/hosts"
}
# What a host that lies may try: each must leave others' rows as they are, answered as it
# may be.  "_version" is what a copy of the database and its server have different.
host_forges() { # N ADDRESS
    local others before version uuid operation
    others='{"op":"select","table":"Host","where":[["name","!=","h1"]],
            "columns":["name","migration_address","xapi_seen"]},
        {"op":"select","table":"VM","where":[["resident_on","!=","h1"],["destination","!=","h1"]],
            "columns":["name","resident_on","destination","power_state","epoch"]},
        {"op":"select","table":"Task","where":[["host","!=","h1"]],"columns":["name","status"]}'
    before=$(ask "$1" "$others")
    may h1 "$2" '{"op":"select","table":"VM","where":[["name","==","at2"]],"columns":["_uuid","_version"]}' || return 1
    version=$(grep -o '"_version":\["uuid","[^"]*"\]' "$work/may" | cut -d: -f2-)
    uuid=$(grep -o '"_uuid":\["uuid","[^"]*"\]' "$work/may" | cut -d: -f2-)
    [ -n "$version" ] && [ -n "$uuid" ] || return 1
    forged() { # TABLE WHERE ROW
        printf '{"op":"update","table":"%s","where":[%s],"row":{%s}}' "$@"
    }
    for operation in "$(forged VM '["name","==","at2"],["_version","!=",'"$version]" '"resident_on":"h1"')" \
        "$(forged VM '["name","==","at2"],["_version","==",'"$version]" '"resident_on":"h1"')" \
        "$(forged VM '["_uuid","==",'"$uuid]" '"resident_on":"h1","epoch":9')" \
        "$(forged VM '["_uuid","!=",["uuid","00000000-0000-0000-0000-000000000000"]]' '"power_state":"Halted"')" \
        "$(forged VM '' '"epoch":9')" "$(forged VM true '"epoch":9')" \
        "$(forged VM '["epoch","==",0]' '"destination":"h1"')" \
        "$(forged Host '["_version","!=",'"$version]" '"migration_address":"10.0.0.9"')" \
        "$(forged VM '["name","==","told"]' '"resident_on":"","destination":""'),$(
            forged VM '["resident_on","==",""],["destination","==",""]' '"power_state":"Running"')" \
        '{"op":"mutate","table":"VM","where":[["name","!=",""]],"mutations":[["epoch","+=",1]]}' \
        '{"op":"delete","table":"Task","where":[["_version","!=",'"$version]]}" \
        '{"op":"delete","table":"Task","where":[]}'; do
        as_host h1 "$2" "$operation"
        [ "$(ask "$1" "$others")" = "$before" ] || { echo "$operation"; return 1; }
    done
}
# Requests that are none of a host's, and none at all; others are served meanwhile.
host_speaks_out_of_turn() { # ADDRESS PORT
    python3 - "$1" "$2" "$work" <<'PYTHON'
import json, socket, ssl, sys
ip, port, work = sys.argv[1:]
context = ssl.create_default_context(cafile=f"{work}/pki/ca.crt")
context.check_hostname = False
context.load_cert_chain(f"{work}/pki-hosts/h1.crt", f"{work}/pki-hosts/h1.key")

def connect():
    return context.wrap_socket(socket.create_connection((ip, int(port)), 10))

def answers(s, *texts):
    """What comes for the texts; None: the connection was closed."""
    s.settimeout(10)
    for text in texts:
        s.sendall(text if isinstance(text, bytes) else json.dumps(text).encode())
    got, n, decoder = "", 0, json.JSONDecoder()
    out = []
    while len(out) < len(texts):
        try:
            one, end = decoder.raw_decode(got)
            got = got[end:]
            if one["id"] is not None and one.get("method") is None:
                out.append(one)
        except ValueError:
            more = s.recv(65536)
            if not more:
                return None
            got += more.decode()
    return out

def request(method, params, id=1):
    return {"method": method, "params": params, "id": id}

def closed(*texts):
    with connect() as s:
        try:
            return answers(s, *texts) is None
        except OSError: # it is closed before all is sent
            return True

select = {"op": "select", "table": "Pool", "where": [], "columns": ["fence"]}
bystander = connect()
with connect() as s:
    for method, params in (("lock", ["x"]), ("steal", ["x"]), ("unlock", ["x"]), ("convert", ["Weft_Pool", {}]),
                           ("set_db", []), ("transact_", ["Weft_Pool", select]), ("", [])):
        assert answers(s, request(method, params))[0]["error"]["error"] == "permission error", method
    for params in ([], [1], ["Weft_Pool", 1], ["Weft_Pool", []], ["Weft_Pool", {"op": ["wait"]}],
                   ["Weft_Pool", {"op": "assert", "lock": "x"}], ["Weft_Pool", select, {"op": "convert"}],
                   ["Weft_Pool", {"op": "wait", "table": "VM", "where": [], "until": "==", "rows": []}],
                   ["Weft_Pool", {"op": "wait", "timeout": 5000, "table": "VM", "where": [], "until": "==", "rows": []}],
                   ["_Server", {"op": "update", "table": "Database", "where": [], "row": {"leader": False}}]):
        assert "permission error" in json.dumps(answers(s, request("transact", params))[0]), params
    for method, params in (("echo", ["x"]), ("set_db_change_aware", [True]), ("list_dbs", []),
                           ("monitor", ["Weft_Pool", "m", {"Pool": {}}]), ("monitor_cancel", ["m"])):
        assert answers(s, request(method, params))[0]["error"] is None, method
    # Answers are those of the host's own operations.
    mine = {"op": "update", "table": "Host", "where": [["name", "==", "h1"]], "row": {"xapi_seen": 12}}
    theirs = dict(mine, where=[["name", "==", "h2"]])
    said = answers(s, request("transact", ["Weft_Pool", mine, select, mine]))[0]["result"]
    assert said[0] == said[2] == {"count": 1} and "rows" in said[1] and len(said) == 3, said
    said = answers(s, request("transact", ["Weft_Pool", mine, theirs, select]))[0]["result"]
    assert said[0] == {"count": 1} and said[1]["error"] == "permission error" and said[2:] == [None], said
    said = answers(s, request("transact", ["Weft_Pool", dict(mine, where=[["nothing", "==", 1]])]))[0]["result"]
    assert len(said) == 1 and said[0]["error"] not in ("permission error", None), said
assert closed(b"{]") and closed(b"[" * 100000) and closed(b'{"method": "x"}')
assert closed(b'"' + b"x" * (100 << 20))
answers(bystander, request("transact", ["Weft_Pool", select]))
PYTHON
}
# The certificate that a server shows to h1 is the one in the file.
shows() { # ADDRESS PORT
    python3 - "$1" "$2" "$work" <<'PYTHON'
import socket, ssl, sys
ip, port, work = sys.argv[1:]
context = ssl.create_default_context(cafile=f"{work}/pki/ca.crt")
context.check_hostname = False
context.load_cert_chain(f"{work}/pki-hosts/h1.crt", f"{work}/pki-hosts/h1.key")
with context.wrap_socket(socket.create_connection((ip, int(port)), 5)) as s:
    shown = ssl.DER_cert_to_PEM_cert(s.getpeercert(True))
with open(f"{work}/pki/server.crt") as f:
    sys.exit(shown.split() != f.read().split())
PYTHON
}
rotated() {
    local name
    for name in server controller; do "$bin/weft" pki rotate "$name" --dir "$work/pki"; done
    "$bin/weft" pki rotate h1 --dir "$work/pki-hosts"
    until_true 5 shows 10.99.0.1 6644 && until_true 5 shows 10.99.0.2 6642 &&
        may h1 10.99.0.1:6644 "$read_pool" && goes_on w1
}
read_pool='{"op":"select","table":"Pool","where":[],"columns":["fence"]}'

# --- certificates of the servers' own authority that are revoked ---------------------------

"$bin/weft" pki host gone --dir "$work/pki" >/dev/null || give_up "no certificate"
cp "$work/pki/gone.key" "$work/pki/gone.crt" "$work" # which "revoke" takes away
cat >"$work/session.py" <<'PYTHON'
"""A session with the certificate of "gone", or "controller", until the other end closes it."""
import os, socket, ssl, sys
name, ip, port, work, said = sys.argv[1:]
context = ssl.create_default_context(cafile=f"{work}/pki/ca.crt")
context.check_hostname = False
folder = work if name == "gone" else f"{work}/pki"
context.load_cert_chain(f"{folder}/{name}.crt", f"{folder}/{name}.key")
with context.wrap_socket(socket.create_connection((ip, int(port)), 5)) as s:
    s.settimeout(60)
    s.sendall(b'{"method":"list_dbs","params":[],"id":1}')
    if not s.recv(4096):
        sys.exit("not let in")
    print("served", flush=True)
    try:
        while said and s.recv(4096):
            pass
    except OSError:
        pass
    print("ended", flush=True)
PYTHON
comes() { python3 "$work/session.py" "$1" "${2%:*}" "${2##*:}" "$work" "" | grep served; } # NAME ADDRESS
stays() { # NAME ADDRESS: in the background; session.NAME.ADDRESS.out says how it goes
    start "session.$1.$2" python3 "$work/session.py" "$1" "${2%:*}" "${2##*:}" "$work" said
    until_true 10 grep -q served "$work/session.$1.$2.out"
}
ended() { until_true 10 grep -q ended "$work/session.$1.$2.out"; }
gone_is_revoked() { # ADDRESS...: by a list that servers have been given
    local a
    for a in "$@"; do stays gone "$a" && stays controller "$a" || return; done
    "$bin/weft" pki revoke gone --dir "$work/pki" || return
    for a in "$@"; do
        try ended gone "$a" && ! comes gone "$a" && try comes controller "$a" || return
        ! grep ended "$work/session.controller.$a.out" || return
    done
}
# Who shows a certificate at s1's address, and whether s2 says a word to him.
cat >"$work/impostor.py" <<'PYTHON'
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1] + ".crt", sys.argv[1] + ".key")
listener = socket.create_server(("10.99.0.1", 6642))
print("listens", flush=True)
while True:
    s = listener.accept()[0]
    s.settimeout(10)
    try:
        with context.wrap_socket(s, server_side=True) as tls:
            print("believed" if tls.recv(1) else "left", flush=True)
    except ssl.SSLError as e:
        print("refused:" if "ALERT" in str(e.reason) else "left:", e, flush=True)
    except OSError as e:
        print("left:", e, flush=True)
PYTHON
peer_is() { # CERTIFICATE OUTCOME
    local out=$work/impostor.out
    rm -f "$out"
    start impostor ip netns exec s1 python3 "$work/impostor.py" "$1"
    until_true 10 grep -q listens "$out" &&
        { "$bin/ovsdb-client" --timeout=5 list-dbs "unix:$work/s2/peer.sock"; until_true 10 grep -q "$2" "$out"; }
    slay impostor
    cat "$out"
    grep -q "$2" "$out" && [ "$(grep -cE "believed|refused" "$out")" -eq "$(grep -c "$2" "$out")" ]
}
# What listens is weft-dbgate, and the server itself at no port of these.
relayed() { # N
    ip netns exec "s$1" ss -Hltnp >"$work/listens" && grep -q ':664[12] .*weft-dbgate' "$work/listens" &&
        ! grep ':664[12] .*ovsdb-server' "$work/listens"
}
all_come() { # ADDRESS...
    local a
    for a in "$@"; do try until_true 10 comes controller "$a" && try comes gone "$a" || return; done
}

# --- who uses it --------------------------------------------------------------------

mkdir "$work/H"
controller() { # NAME ADDRESSES [NAMESPACE]
    mkdir -p "$work/$1"
    start "$1" ${3:+ip netns exec "$3"} env OVS_RUNDIR="$work/$1" OVS_DBDIR="$work/$1" \
        OVS_LOGDIR="$work/$1" "$bin/weft-controllerd" --db="$2" --id="$1" --unixctl="$work/$1/ctl" \
        --rest="unix:$work/$1/rest" --audit-interval=0 --log-file="$work/$1.log" -vconsole:off \
        -vsyslog:off "${controller_tls[@]}"
}
status() { "$bin/ovs-appctl" -t "$work/$1/ctl" weft-controllerd/status; }
in_step() { # one of the controllers has H, at the newest generation
    local c
    for c in c1 c2 c3; do
        if [ -n "${pid[$c]:-}" ] && status "$c" >"$work/$c.status" 2>&1 && awk '
            /^pool database: connected/ { want = $NF }
            /^H: connected/ { up = 1 }
            /generation: applied/ { got = $3 + 0 }
            END { exit !(up && want && want == got) }' "$work/$c.status"; then
            return 0
        fi
    done
    grep -Eh "leads|pool database|^H|generation|error" "$work"/c?.status | tr '\n' ';'
    return 1
}
start_switch() {
    local d=$work/H
    "$bin/ovsdb-tool" create "$d/conf.db" "$PWD/build/share/vswitch.ovsschema"
    start Hdb "$bin/ovsdb-server" "$d/conf.db" --remote="punix:$d/db.sock" --unixctl="$d/db.ctl" \
        -vconsole:off -vsyslog:off
    until_true 10 test -S "$d/db.sock" || give_up "no database of H"
    "$bin/ovs-vsctl" --db="unix:$d/db.sock" --no-wait init
    start_vswitchd
    "$bin/ovs-vsctl" --db="unix:$d/db.sock" --timeout=20 add-br xenbr0 -- \
        set bridge xenbr0 datapath_type=dummy || give_up "no bridge on H"
}
start_vswitchd() {
    local d=$work/H
    start H env OVS_RUNDIR="$d" OVS_DBDIR="$d" OVS_LOGDIR="$d" OVS_SYSCONFDIR="$d" \
        "$bin/weft-vswitchd" "unix:$d/db.sock" --unixctl="$d/ctl" --enable-dummy=override \
        --disable-system --disable-system-route -vconsole:off -vsyslog:off
}
state_pool() { # controllers: the first answers
    cat >"$work/pool.json" <<JSON
{"version": 1, "hosts": [{"name": "H", "ovsdb": "unix:$work/H/db.sock"}],
 "networks": [{"name": "counter", "type": "vlan", "tag": 7}]}
JSON
    "$bin/weft" policy import "$work/pool.json" --controller "unix:$work/c1/rest" --wait --timeout 20
}
writer() { # NAME MODE WHERE [NAMESPACE]
    start "$1" ${4:+ip netns exec "$4"} python3 "$PWD/tests/smoke/pool_writer.py" "$2" "$3" "$1-" \
        "$work/$1.acked" "$work/pki/controller.key" "$work/pki/controller.crt" "$work/pki/ca.crt"
}
count() { wc -l <"$work/$1.acked" 2>/dev/null || echo 0; }
more() { [ "$(count "$1")" -ge "$2" ] || { echo "$1: $(count "$1") rows, wanted $2"; false; }; }
goes_on() { until_true "${2:-15}" more "$1" $(($(count "$1") + 20)); }
all_there() { # WRITER N: every acknowledged row is in the server's database
    sort "$work/$1.acked" >"$work/$1.want"
    tenants "$2" >"$work/s$2.has"
    comm -23 "$work/$1.want" "$work/s$2.has" >"$work/$1.lost"
    echo "$(wc -l <"$work/$1.lost") of $(wc -l <"$work/$1.want") lost on s$2"
    [ -s "$work/$1.want" ] && [ ! -s "$work/$1.lost" ]
}
# Rows come and are counted in one transaction.
counted_once() { # N
    local n rows
    rows=$(tenants "$1" | wc -l)
    n=$(ask "$1" '{"op":"select","table":"Network","where":[],"columns":["policy_epoch"]}' |
        grep -o '"policy_epoch":[0-9]*' | cut -d: -f2)
    echo "$rows rows, counted to $((n - 1))"
    [ "$rows" -eq $((n - 1)) ]
}
# Epochs with which controllers got H, in order of time: each greater than all before.
one_master() {
    cat "$work"/c?.log | grep 'H: connected, OpenFlow' | sort |
        sed 's/.*epoch \([0-9]*\).*/\1/' >"$work/epochs"
    [ -s "$work/epochs" ] && sort -n -C "$work/epochs"
}

start_switch

# --- a pair -----------------------------------------------------------------------------

test_pair() {
    make create 1 --peer 10.99.0.2 >/dev/null || give_up "create"
    make follow 2 --peer 10.99.0.1 >/dev/null || give_up "follow"
    run 1
    until_true 10 serves 1 || give_up "the primary does not run"
    run 2
    check "a copy follows" until_true 10 serves 2
    db copy "$work/s1" 10.99.0.2 || give_up "copy"
    pair=ssl:10.99.0.1:6641,ssl:10.99.0.2:6641
    controller c1 $pair
    until_true 10 test -S "$work/c1/rest" || give_up "no controller"
    check "a controller leads" until_true 20 state_pool
    [ "$failed" -eq 0 ] || finish
    writer w1 rest "$work/c1/rest"
    check "changes are acknowledged" goes_on w1
    check "a copy that cannot be made primary by force while its primary answers" eval \
        '! db promote "$work/s2" --force && grep -q "without --force" "$dir/said"'

    check "hosts: a port of their own" eval '
        db hosts "$work/s1" "$work/pki-hosts/ca.crt" && db hosts "$work/s2" "$work/pki-hosts/ca.crt" &&
        hosts_are_stated 1 && until_true 10 may h1 10.99.0.1:6644 "$read_pool"'
    check "hosts: the authority of the servers is refused for it" eval \
        '! db hosts "$work/s1" "$work/pki/ca.crt" && grep -q "own authority" "$dir/said"'
    check "hosts: others are closed to them" eval \
        '! as_host h1 10.99.0.1:6641 "$read_pool" && ! as_host h1 10.99.0.1:6642 "$read_pool"'
    check "hosts: each writes what is its own" host_writes_its_own 10.99.0.1:6644
    check "hosts: and nothing else" host_writes_no_more 10.99.0.1:6644
    check "hosts: nor by what they forge" host_forges 1 10.99.0.1:6644
    check "hosts: nor by other requests" host_speaks_out_of_turn 10.99.0.1 6644
    check "hosts: a move, after which the source has no say" host_moves_its_own 10.99.0.1:6644
    check "hosts: one that is thrown out comes no more" host_is_thrown_out 1 10.99.0.1:6644
    check "hosts: the copy answers them and cannot be written" eval '
        until_true 10 may h1 10.99.0.2:6642 "$read_pool" &&
        ! may h1 10.99.0.2:6642 "$(set_row Host name h1 '"'"'"xapi_seen":9'"'"')"'

    ports="10.99.0.1:6641 10.99.0.1:6642 10.99.0.2:6642"
    check "revoked: without a list for hosts there is none for others" eval \
        '! db crl "$work/s2" "$work/pki/crl.pem" && grep -q "hosts need a list" "$dir/said"'
    check "revoked: servers that run take lists up" eval '
        db hosts "$work/s2" "$work/pki-hosts/ca.crt" --crl "$work/pki-hosts/crl.pem" &&
        db crl "$work/s1" "$work/pki/crl.pem" && db crl "$work/s2" "$work/pki/crl.pem" &&
        until_true 10 relayed 1 && until_true 10 relayed 2 && all_come $ports && goes_on w1 25 &&
        db status "$work/s1" | grep -q "^revoked: $work/pki/crl.pem"'
    check "revoked: put out at each port, others not" gone_is_revoked $ports
    check "revoked: a host at the copy" eval '
        may h1 10.99.0.2:6642 "$read_pool" && ! as_host h3 10.99.0.2:6642 "$read_pool"'
    check "revoked: the copy follows" eval 'goes_on w1 && until_true 10 all_there w1 2'
    slay s1
    check "another server at the primary's address is asked" peer_is "$work/pki/server" believed
    check "a host there is not" peer_is "$work/pki-hosts/h1" refused
    run 1
    check "goes on with the primary itself" goes_on w1 25

    both STOP 2
    pause 0.5
    before=$(count w1)
    pause 1.5
    check "nothing is acknowledged that the copy lacks" eval '! more w1 $((before + 1))'
    both CONT 2
    check "goes on with the copy" goes_on w1

    check "certificates are rotated" rotated
    check "the copy is promoted" db promote "$work/s2"
    check "and is written to" goes_on w1 25
    check "hosts: it serves them now, and the other does not" eval '
        until_true 10 may h1 10.99.0.2:6644 "$(set_row Host name h1 '"'"'"xapi_seen":8'"'"')" &&
        ! timeout 2 bash -c "</dev/tcp/10.99.0.1/6644"'
    check "the old primary follows, and is closed to clients" eval '
        until_true 10 eval "db status \"$work/s1\" | grep -q \"s1: copy, running\"" &&
        ! timeout 2 bash -c "</dev/tcp/10.99.0.1/6641"'
    check "no acknowledged row is lost" all_there w1 2
    slay s2
    run 2
    check "the primary killed and back" goes_on w1 25

    # Alone behind a cut: it and a controller that sees nobody else.
    sever 2
    controller c3 $pair s2
    until_true 10 test -S "$work/c3/rest" || give_up "no controller behind the cut"
    writer w2 rest "$work/c3/rest" s2
    check "by force, when the primary cannot be reached" db promote "$work/s1" --force
    check "goes on with the promoted one" goes_on w1 25
    check "the other acknowledged nothing meanwhile" test ! -s "$work/w2.acked"
    slay w2
    heal 2
    check "and follows when it is back" until_true 20 eval \
        'db status "$work/s2" | grep -q "s2: copy, running" && db status "$work/s2" | grep -q "number 3"'
    check "it confirms again" db copy "$work/s1" 10.99.0.2
    check "with it changes are acknowledged" goes_on w1 25
    slay w1
    check "no acknowledged row is lost, on either" eval 'all_there w1 1 && until_true 5 all_there w1 2'
    check "H is led at the newest state" until_true 20 in_step
    check "H obeyed one controller at a time" one_master
}

# --- a cluster --------------------------------------------------------------------------

# What s1's server answers to "kick", one answer after the other: listed; sent; missing and
# not yet committed; none; committed and no leader; more entries, and the first committed.
kick_is_awaited() {
    local d=$work/answers
    mkdir "$d" && cp "$bin/weft" "$d/weft" || return
    looks() { # NUMBER LEADER END UNCOMMITTED [SERVER]
        printf '%s\n' "Name: Weft_Pool" "Leader: $2" "Log: [2, $3]" "Entries not yet committed: $4" \
            "Servers:" "    aaaa (aaaa at ssl:10.99.0.1:6643) (self)" ${5:+"    bbbb (bbbb at $5)"} >"$d/$1"
    }
    looks 1 self 9 0 ssl:10.99.0.5:6643
    echo sent removal request to leader >"$d/2"
    looks 3 aaaa 10 1
    looks 5 unknown 10 0
    looks 6 aaaa 12 2
    looks 7 self 10 0
    cat >"$d/ovs-appctl" <<'SH'
#!/bin/sh
d=${0%/*}
echo "$*" >>"$d/asked"
cat "$d/$(wc -l <"$d/asked")"
SH
    chmod +x "$d/ovs-appctl"
    "$d/weft" pool db kick "$work/s1" 10.99.0.5
    echo "exit code $?, asked $(wc -l <"$d/asked") times, the second $(sed -n 2p "$d/asked")" | tee "$d/end"
    grep -q 'exit code 0, asked 6 times, .* cluster/kick Weft_Pool ssl:10.99.0.5:6643$' "$d/end"
}
test_cluster() {
    make cluster 1 >/dev/null || give_up "cluster"
    run 1
    until_true 10 serves 1 || give_up "no cluster"
    check "a cluster of one: what is no member cannot be kicked" eval \
        '! db kick "$work/s1" 10.99.0.5 && grep -q "is no member" "$dir/said" &&
        db status "$work/s1" | grep -q "^Role: leader" && serves 1'
    for i in 2 3; do
        make join $i --peer 10.99.0.1 >/dev/null && run $i
    done
    check "three members" eval 'until_true 15 serves 2 && until_true 15 serves 3'
    check "a kick ends when the cluster has agreed, whatever is seen before" kick_is_awaited
    check "a member does not kick itself" eval \
        '! db kick "$work/s1" 10.99.0.1 && grep -q "weft pool db leave" "$dir/said" &&
        db status "$work/s1" | grep -q "^Status: cluster member" && serves 1'
    all=ssl:10.99.0.1:6641,ssl:10.99.0.2:6641,ssl:10.99.0.3:6641,ssl:10.99.0.4:6641,ssl:10.99.0.5:6641
    members=10.99.0.1:6641,10.99.0.2:6641,10.99.0.3:6641
    controller c1 $all
    controller c2 $all
    until_true 10 test -S "$work/c1/rest" || give_up "no controller"
    check "controllers lead" until_true 20 state_pool
    writer w3 ovsdb $members
    check "rows are acknowledged" goes_on w3
    leader() { # prints the number of the member that leads
        local i
        for i in 1 2 3 4 5; do
            if [ -n "${pid[s$i]:-}" ] &&
                db status "$work/s$i" 2>/dev/null | grep -q '^Role: leader'; then
                echo $i
                return 0
            fi
        done
        return 1
    }
    raft() { "$bin/ovs-appctl" -t "$work/s$1/ctl" cluster/status Weft_Pool; }
    follower() { # prints the number of one that knows the leader
        local i n sid
        n=$(leader) && sid=$(raft "$n" | sed -n 's/^Server ID: \([0-9a-f]*\) .*/\1/p') || return
        for i in 1 2 3; do
            if [ "$i" -ne "$n" ] && raft "$i" | grep -q "^Leader: $sid\$"; then
                echo "$i"
                return 0
            fi
        done
        return 1
    }
    lists() { raft "$1" | grep -qF " at ssl:$2:6643)"; } # N ADDRESS
    is_up() { db status "$work/s$1" | grep -Eq '^Status: cluster member' && serves "$1"; }

    members_serve_hosts() {
        local i
        for i in 1 2 3; do db hosts "$work/s$i" "$work/pki-hosts/ca.crt" || return; done
        hosts_are_stated 1 || return
        for i in 1 2 3; do
            until_true 10 may h1 "10.99.0.$i:6644" "$read_pool" &&
                until_true 5 may h1 "10.99.0.$i:6644" "$(set_row Host name h1 '"xapi_seen":7')" &&
                may_not h1 "10.99.0.$i:6644" "$(set_row Host name h2 '"xapi_seen":7')" &&
                host_forges "$i" "10.99.0.$i:6644" || return
        done
    }
    check "hosts: each member serves them" members_serve_hosts
    ports="10.99.0.1:6641 10.99.0.2:6641 10.99.0.3:6641"
    members_take_lists_up() {
        local i
        for i in 1 2 3; do
            db hosts "$work/s$i" "$work/pki-hosts/ca.crt" --crl "$work/pki-hosts/crl.pem" &&
                db crl "$work/s$i" "$work/pki/crl.pem" && until_true 10 relayed "$i" &&
                until_true 15 is_up "$i" || return
        done
        all_come $ports && goes_on w3
    }
    check "revoked: members that run take lists up" members_take_lists_up
    check "revoked: put out at each member, others not" gone_is_revoked $ports
    check "revoked: rows are acknowledged" goes_on w3
    n=$(leader)
    slay "s$n"
    check "the leader killed" goes_on w3
    check "hosts: the others serve them" until_true 10 may h1 "10.99.0.$((n % 3 + 1)):6644" \
        "$(set_row Host name h1 '"xapi_seen":8')"
    run "$n"
    check "it is back" until_true 15 is_up "$n"

    n=$(leader)
    both STOP "$n"
    check "the leader stands still" goes_on w3
    slay c1
    both CONT "$n"
    check "it goes on as a follower" until_true 15 is_up "$n"
    check "the other controller has H" until_true 20 in_step
    controller c1 $all

    n=$(leader)
    left=$n # its log has entries that another leader replaces
    writer w4 ovsdb "10.99.0.$n:6641" "s$n"
    until_true 10 more w4 1
    sever "$n"
    pause 1
    minority=$(count w4)
    check "the leader cut off" goes_on w3
    check "behind the cut nothing is acknowledged" eval '! more w4 $((minority + 1))'
    slay w4
    heal "$n"
    check "healed" until_true 15 is_up "$n"

    for i in 4 5; do
        make join $i --peer 10.99.0.1 >/dev/null && run $i
    done
    check "five members" eval 'until_true 15 is_up 4 && until_true 15 is_up 5'
    slay s2
    slay s3
    check "two of five killed" goes_on w3
    run 2
    run 3
    check "they are back" eval 'until_true 15 is_up 2 && until_true 15 is_up 3'
    check "one leaves" db leave "$work/s4"
    slay s4
    slay s5
    until_true 15 follower >/dev/null
    n=$(follower)
    check "one that is gone is kicked, by a follower" eval \
        'db kick "$work/s$n" 10.99.0.5 && ! lists "$n" 10.99.0.5 && lists "$n" 10.99.0.3'
    refuse "what is no member cannot be kicked" db kick "$work/s$n" 10.99.0.5
    check "goes on with three" goes_on w3
    check "H is led at the newest state" until_true 20 in_step
    slay w3
    check "no acknowledged row is lost" eval 'all_there w3 1 && all_there w4 1 &&
        until_true 5 all_there w3 2 && until_true 5 all_there w3 3'
    check "each is counted once" counted_once 1

    # Quorum is lost: one of three is left.
    mapfile -t others < <(seq 3 | grep -v "$left")
    for i in "${others[@]}"; do slay "s$i"; done
    check "quorum lost: a member says so" until_true 20 eval \
        'db status "$work/s$left" | grep -q "^Status: disconnected"'
    slay "s$left"
    check "quorum lost: a cluster of one from what is left" db rescue "$work/s$left"
    run "$left"
    check "quorum lost: every acknowledged row is there, once" eval \
        'until_true 15 serves $left && all_there w3 $left && counted_once $left'
    check "quorum lost: controllers go on with it" until_true 20 in_step
    for i in "${others[@]}"; do run "$i"; done
    check "quorum lost: the others come back as what they were" until_true 20 serves "${others[0]}"
    check "quorum lost: controllers do not believe them" eval '
        slay c1; slay c2
        controller c1 "$(printf "ssl:10.99.0.%s:6641," "${others[@]}")ssl:10.99.0.$left:6641"
        until_true 20 in_step && grep -q "number 2" "$work/c1.log"'
    check "H obeyed one controller at a time" one_master
}

case $part in
pair) test_pair ;;
*) test_cluster ;;
esac
finish
