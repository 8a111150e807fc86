#!/bin/bash
# What was recorded, from the command line: exporters > weft-flowd > weft flow.
# Names come from a controller; without one there are none.  Over the Unix socket,
# and with certificates over TLS.
# shellcheck disable=SC2317 # what check and until_true call
set -u
cd "$(dirname "$0")/../.." || exit
suite=flow_query
. tests/smoke/lib.bash
weft=$bin/weft
port=$((20000 + RANDOM % 6000)) # below those that the kernel gives
tls=$((port + 1))
ipfix=$((port + 2))
export OVS_RUNDIR=$dir OVS_LOGDIR=$dir OVS_DBDIR=$dir WEFT_PKI=$dir/pki
unset WEFT_CONTROLLER WEFT_FLOWD WEFT_CERTIFICATE WEFT_PRIVATE_KEY WEFT_CA_CERT

flow() { "$weft" flow "$@"; }
has() { # WORDS COMMAND...: its output holds them
    local words=$1 said
    shift
    said=$("$@" 2>&1)
    [[ $said == *"$words"* ]] || { echo "no \"$words\" in: $said"; return 1; }
}
row() { # PATTERN COMMAND...: one line of its output matches, blanks being one
    local pattern=$1
    shift
    "$@" 2>&1 | tr -s ' ' | grep -E -- "$pattern" || { "$@"; return 1; }
}
all() { # runs each line of stdin, until one fails
    local line
    while read -r line; do
        eval "$line" || { echo "in: $line"; return 1; }
    done
}
flowd() {
    "$bin/weft-flowd" --listen="udp:$port:127.0.0.1" --listen="tls:$ipfix:127.0.0.1" --store="$dir/flows.db" \
        --assume-sampling=127.0.0.9=400 --http="unix:$dir/weft-flowd.http" --http="ssl:$tls:127.0.0.1" \
        --private-key="$WEFT_PKI/flowd.key" --certificate="$WEFT_PKI/flowd.crt" \
        --ca-cert="$WEFT_PKI/ca.crt" --crl="$WEFT_PKI/crl.pem" \
        ${1+--controller="unix:$dir/weft-controllerd.rest"} 2>>"$dir/flowd.log" &
    started $!
    flowd_pid=$!
    until_true 10 flow status
}
send() { /usr/bin/python3 tests/smoke/flow_send.py "$port" "$@"; }
committed() { [ "$(flow status --json | grep -oP '"committed": \K[0-9]+')" -ge "$1" ]; }
named() { flow status --json | grep -q '"generation": [1-9]'; }
key() { "$weft" "$1" show "$2" --json | grep -oP '"key": \K[0-9]+'; }
remote() { # USER ARGUMENT...
    local user=$1
    shift
    flow "$@" --flowd "https://127.0.0.1:$tls" --ca-cert "$WEFT_PKI/ca.crt" \
        --certificate "$WEFT_PKI/$user.crt" --private-key "$WEFT_PKI/$user.key"
}

check certificates all <<'LINES'
"$weft" pki init "$WEFT_PKI"
"$weft" pki host flowd --address 127.0.0.1
"$weft" pki user vera --role viewer
"$weft" pki user red1 --tenant red
LINES

# Connections that never get to their request's end are closed in time.
slow() {
    /usr/bin/python3 - "$dir/weft-flowd.http" <<'END'
import socket, sys, time
connections = []
for i in range(20):
    connections.append(socket.socket(socket.AF_UNIX))
    connections[i].connect(sys.argv[1])
    connections[i].send(b"GET /v1/st")
while connections:
    time.sleep(0.2)
    for c in list(connections):
        try:
            c.send(b"a")
        except OSError:
            connections.remove(c)
END
}

# --- without a controller -----------------------------------------------------------------
check start flowd
send 127.0.0.1 v5 <<'END'
src=10.0.0.1 dst=10.0.0.2 sport=40000 dport=443 proto=6 packets=7 bytes=7000
src=10.0.0.2 dst=10.0.0.1 sport=443 dport=40000 proto=6 packets=5 bytes=65000
src=10.0.0.3 dst=10.0.0.2 sport=40001 dport=53 proto=17 packets=1 bytes=80 in_if=9
END
check stored until_true 10 committed 3
check without-names all <<'LINES'
row '40000 10.0.0.2:443 7 7000' flow list src 10.0.0.1
row '^10.0.0.1 72.0 kB 12 2 #' flow top
row '^443 72.0 kB 12 2 #' flow top --by port
row '^udp 80 B 1 1' flow top --by proto
has '"bytes": 65000' flow top --by src,dst --limit 1 --json
has 'time,start,end,src' flow list --csv
row '10.0.0.3,40001,10.0.0.2,53,udp,1,80' flow list --csv proto udp
has 'max ' flow graph
has '<polyline' flow graph --by proto --svg -
has 'outside' flow matrix
row '^records 3 taken, 3 committed' flow status
row '^datagrams 0 found the kernel' flow status
LINES
check errors-point all <<'LINES'
has '    src 10.0.0.1 and prot tcp' flow list src 10.0.0.1 and prot tcp
has '                     ^' flow list src 10.0.0.1 and prot tcp
has 'did you mean "top"' flow topp
has 'nothing to sum by' flow top --by colour
has 'is it running' flow top --flowd unix:/nonexistent
LINES
refuse bad-filter flow list 'src 10.0.0.1 and ('
check every-example all <<'LINES'
flow list 'src 10.1.0.0/16 and dst port 443 and (proto tcp or proto udp)'
has 'no flows in that time pass the filter' flow list vif web1-0 and dropped
has 'nothing is called "web1-0", or ever was' flow why-dropped vif web1-0
has '             ^' flow matrix port 9 or vif web1-0
flow list network blue-lan and not tenant red and bytes \> 1M
LINES
smoke_kill "$flowd_pid"

# --- with one ------------------------------------------------------------------------------
"$bin/ovsdb-tool" create "$dir/pool.db" build/share/pool.ovsschema
"$bin/ovsdb-server" "$dir/pool.db" --remote="punix:$dir/pool.sock" --log-file="$dir/db.log" \
    --unixctl="$dir/db.ctl" -vconsole:off 2>/dev/null &
started $!
until_true 5 test -S "$dir/pool.sock" || give_up "no database"
"$bin/weft-controllerd" --db "unix:$dir/pool.sock" --rest "unix:$dir/weft-controllerd.rest" \
    --log-file="$dir/controller.log" -vconsole:off 2>/dev/null &
started $!
# It answers before it has read its database, and takes no changes until then.
ready() { "$weft" status --json | grep -q '"generation": [1-9]'; }
check controller until_true 10 ready
check pool all <<'LINES'
"$weft" tenant add red
"$weft" tenant add blue
"$weft" network add red-lan type=vlan tag=10 tenant=red
"$weft" network add blue-lan type=vlan tag=11 tenant=blue
"$weft" vm add r1 tenant=red
"$weft" vm add b1 tenant=blue
"$weft" vif add r1-0 vm=r1 network=red-lan mac=02:00:00:00:00:01 addresses=10.0.0.1
"$weft" vif add b1-0 vm=b1 network=blue-lan mac=02:00:00:00:00:02 addresses=10.0.0.1
"$weft" group add web vms=b1
"$weft" policy add base scope=global author=alice
"$weft" rule add base/no-ssh order=10 direction=in action=deny protocol=tcp ports=22
LINES
check start-with-names flowd names
(slow && touch "$dir/slow-gone") &
started $!
check names-come until_true 10 named
# Both tenants use 10.0.0.1; the network or the vif's key tells them apart.
send 127.0.0.1 ipfix <<END
src=10.0.0.1 dst=10.0.0.9 sport=1000 dport=80 proto=6 packets=10 bytes=1000 vlan=10
src=10.0.0.1 dst=10.0.0.9 sport=1001 dport=80 proto=6 packets=20 bytes=2000 vlan=11
src=10.0.0.1 dst=10.0.0.9 sport=1002 dport=80 proto=6 packets=40 bytes=4000 in_vif=$(key vif r1-0)
src=10.0.0.9 dst=10.0.0.1 sport=1003 dport=22 proto=6 packets=3 bytes=180 vlan=10 forwarding=129 \
out_vif=$(key vif r1-0) rule_in=$(key rule base/no-ssh)
END
check stored-too until_true 10 committed 4
check with-names all <<'LINES'
row '^red 5.0 kB 50 2' flow top --by tenant forwarded and not src 10.0.0.2
row '^b1-0 2.0 kB 20 1' flow top --by vif
has '"bytes": 4000' flow list --json port 1002 and vm r1
row 'base/no-ssh alice 3 180 1' flow why-dropped
row 'AUTHOR PROTO PACKETS' flow why-dropped --by proto
row 'alice tcp 3 180 1' flow why-dropped --by proto
row ',forwarding,.*,rule_in_author' flow list --csv port 1003
row ',129,.*,alice' flow list --csv port 1003
row '^outside 72.1 kB 180 B$' flow matrix not network blue-lan
row '^web . ' flow matrix --of group network blue-lan
row '1001,10.0.0.9,80,tcp,20,2000' flow list --csv group web
has '1003' flow list rule base/no-ssh
LINES

# --- a policy, tried on what was stored ------------------------------------------------------
# No vif is on a host here, so what would be decided is not known.
"$weft" policy export >"$dir/pool.json"
check shadow row '^3 flows: .* 3 unknown' "$weft" policy shadow "$dir/pool.json" --stored 1h
check shadow-csv row '^protocol,port,.*,then_by' "$weft" policy shadow "$dir/pool.json" --stored 1h --csv

# --- live, and remote --------------------------------------------------------------------------
flow watch --json --limit 1 port 1005 >"$dir/watched" &
watch=$!
started $watch
seen() {
    send 127.0.0.1 v5 <<<"src=10.0.0.5 dst=10.0.0.6 sport=1005 dport=80 proto=6 packets=1 bytes=40"
    grep -q '"sport":1005' "$dir/watched"
}
check watch until_true 10 seen
check watch-ends wait $watch
check remote row '^tcp' remote vera top --by proto
refuse tenants-do-not-see-all remote red1 top
refuse no-certificate curl -sk "https://127.0.0.1:$tls/v1/status"

# Of who samples and does not say so.
send 127.0.0.9 ipfix <<<"src=10.0.7.7 dst=10.0.7.8 sport=1007 dport=80 proto=6 packets=2 bytes=100"
assumed() { row '^10.0.7.7 40.0 kB 800 1 ' flow top --by src src 10.0.7.7; }
check assumed-sampling until_true 10 assumed

check slow-ones-go until_true 20 test -e "$dir/slow-gone"

# --- signals -------------------------------------------------------------------------------------
# SIGHUP: certificates anew; if they cannot be read the old ones stay.
shown() { # the certificate that exporters get to see
    openssl s_client -connect "127.0.0.1:$ipfix" </dev/null 2>/dev/null | openssl x509 -noout -serial
}
changed() { [ -n "$(shown)" ] && [ "$(shown)" != "$serial" ]; }
serial=$(shown)
check exporters-see-a-certificate test -n "$serial"
cp "$WEFT_PKI/flowd.crt" "$dir/good.crt"
echo nonsense >"$WEFT_PKI/flowd.crt"
kill -HUP "$flowd_pid"
check bad-certificate-said until_true 10 grep -q 'flowd.crt' "$dir/flowd.log"
check old-certificate-stays test "$(shown)" = "$serial"
rm "$WEFT_PKI/flowd.crt" "$WEFT_PKI/flowd.key"
check new-certificate "$weft" pki host flowd --address 127.0.0.1
kill -HUP "$flowd_pid"
check new-certificate-shown until_true 10 changed
# Control-C: it ends well, and what it had taken is stored.
taken() { [ "$(flow status --json | grep -oP '"taken": \K[0-9]+')" -gt "$was" ]; }
was=$(flow status --json | grep -oP '"taken": \K[0-9]+')
flow watch port 1006 >"$dir/watched" 2>&1 &
watch=$!
started $watch
last_one() {
    send 127.0.0.1 v5 <<<"src=10.0.0.5 dst=10.0.0.6 sport=1006 dport=80 proto=6 packets=1 bytes=40"
    grep -q 10.0.0.5 "$dir/watched"
}
check last-one until_true 10 last_one
check last-one-taken until_true 10 taken
kill -INT "$flowd_pid"
check ends-well wait "$flowd_pid"
totals() { tail -n 1 "$dir/flowd.log" | grep '"malformed":0'; }
check its-last-words totals
refuse watch-does-not-end-well wait $watch
check watch-says-why grep -q 'weft-flowd .*has ended' "$dir/watched"
check starts-after flowd
check last-one-stored row '1006 10.0.0.6:80 1 40' flow list port 1006

# --- SIGKILL -------------------------------------------------------------------------------------
before=$(flow top --by exporter --json exporter 127.0.0.1 | grep -oP '"flows": \K[0-9]+')
{ kill -KILL "$flowd_pid" && wait "$flowd_pid"; } 2>/dev/null
check starts-again flowd
after() { [ "$(flow top --by exporter --json exporter 127.0.0.1 | grep -oP '"flows": \K[0-9]+')" -ge "$before" ]; }
check nothing-lost after
check names-stay row '^r1-0 ' flow top --by vif
finish
