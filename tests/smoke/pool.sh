#!/bin/bash
# The pool from the command line, end to end: weft > REST > weft-controllerd >
# pool database.  Over the Unix socket, and with certificates over TLS.
set -u
cd "$(dirname "$0")/../.." || exit
bin=$PWD/build/bin
weft=$bin/weft
dir=$(mktemp -d)
failed=0
port=$((26000 + RANDOM % 6000)) # below those that the kernel gives, none of flow_query
pids=()

export OVS_RUNDIR=$dir OVS_LOGDIR=$dir OVS_DBDIR=$dir WEFT_PKI=$dir/pki XDG_STATE_HOME=$dir/state
unset WEFT_CONTROLLER WEFT_CERTIFICATE WEFT_PRIVATE_KEY WEFT_CA_CERT
end() {
    local p
    for p in "${pids[@]}"; do
        kill "$p" 2>/dev/null
        wait "$p" 2>/dev/null
    done
    rm -rf "$dir"
}
trap end EXIT

check() { # NAME WHY COMMAND...
    local what=$1 why=$2
    shift 2
    if "$@" >"$dir/said" 2>&1; then
        echo "ok pool/$what"
    else
        echo "not ok pool/$what: $why: $(tail -n 3 "$dir/said" | tr '\n' ' ')"
        failed=1
    fi
}
within() { # SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        read -rt 0.05 <> <(:)
    done
    return 0
}
exits() { # STATUS COMMAND...: with that status
    local want=$1 got
    shift
    "$@"
    got=$?
    [ $got -eq "$want" ] || { echo "exit status $got, not $want"; return 1; }
}
# refuses WORDS COMMAND...: fails, and its message holds the words.
refuses() {
    local words=$1 said
    shift
    said=$("$@" 2>&1) && { echo "was accepted"; return 1; }
    [[ $said == *"$words"* ]] || { echo "$said"; return 1; }
}
all() { # runs each line of stdin, until one fails
    local line
    while read -r line; do
        eval "$line" || { echo "in: $line"; return 1; }
    done
}
has() { # WORDS COMMAND...: its output holds them
    local words=$1 said
    shift
    said=$("$@" 2>&1) || { echo "$said"; return 1; }
    [[ $said == *"$words"* ]] || { echo "no \"$words\" in: $said"; return 1; }
}
hasnot() { ! has "$@" >/dev/null; }

# It answers before it has read its database, and takes no changes until then.
ready() { "$weft" status --json | grep -q '"generation": [1-9]'; }
controller() {
    "$bin/weft-controllerd" --db "unix:$dir/pool.sock" --rest "unix:$dir/weft-controllerd.rest" \
        --rest "ssl:$port:127.0.0.1" --rest "token:$((port + 1)):127.0.0.1" --rest-private-key "$WEFT_PKI/controller.key" \
        --rest-certificate "$WEFT_PKI/controller.crt" --rest-ca-cert "$WEFT_PKI/ca.crt" \
        --rest-crl "$WEFT_PKI/crl.pem" --log-file="$dir/controller.log" -vconsole:off &
    pids[1]=$!
    within 10 ready
}
as() { # USER COMMAND...: with that user's certificate
    local user=$1
    shift
    "$@" --controller "https://127.0.0.1:$port" --ca-cert "$WEFT_PKI/ca.crt" \
        --certificate "$WEFT_PKI/$user.crt" --private-key "$WEFT_PKI/$user.key"
}

check pki "certificates are made" all <<'LINES'
"$weft" pki init "$WEFT_PKI"
"$weft" pki host controller --address 127.0.0.1
"$weft" pki user root --role admin
"$weft" pki user olga --role operator
"$weft" pki user vera --role viewer
"$weft" pki user red1 --tenant red
"$weft" pki user alice --role viewer
"$weft" pki user eve --role admin
cp "$WEFT_PKI/eve.crt" "$WEFT_PKI/gone.crt"; cp "$WEFT_PKI/eve.key" "$WEFT_PKI/gone.key"
"$weft" pki revoke eve
has "admin" "$weft" pki show root
refuses "has a certificate" "$weft" pki host controller
refuses "no name" "$weft" pki host ../x
exits 2 "$weft" pki host
exits 2 "$weft" pki user x --role admin --tenant red
LINES

"$bin/ovsdb-tool" create "$dir/pool.db" build/share/pool.ovsschema
"$bin/ovsdb-server" "$dir/pool.db" --remote="punix:$dir/pool.sock" --log-file="$dir/db.log" \
    --unixctl="$dir/db.ctl" -vconsole:off &
pids[0]=$!
within 5 test -S "$dir/pool.sock"
check start "the controller answers" controller

cookie_of() { # RULE: as on its flows
    printf '0xd505%012x' "$("$weft" rule show "$1" --json | sed -n 's/.*"key": \([0-9]*\),*$/\1/p')"
}
check objects "objects are made, shown, changed and removed" all <<'LINES'
"$weft" tenant add red
"$weft" tenant add green
"$weft" network add nr type=vlan tag=10 tenant=red
"$weft" network add ng type=overlay vni=7 encapsulation=geneve tenant=green
"$weft" vm add r1 tenant=red
"$weft" vm add g1 tenant=green
"$weft" vif add r1-0 vm=r1 network=nr mac=02:00:00:00:00:01 ipv4_allowed=10.0.0.1,10.0.0.2
"$weft" vif add g1-0 --json vm=g1 network=ng mac=02:00:00:00:00:02 --wait
"$weft" group add gr tenant=red vms=r1
"$weft" group add everyone addresses=10.0.0.0/8,fd00::/8 groups=gr
"$weft" policy add base scope=global "author=the network team"
"$weft" policy add mine scope=vm vm=r1
"$weft" rule add base/ssh order=10 direction=in action=allow protocol=tcp ports=22,8000-8010
"$weft" rule add base/ping order=20 direction=in action=allow protocol=icmp remote_group=gr
"$weft" vif set r1-0 locking_mode=locked ipv4_allowed-=10.0.0.2 ipv4_allowed+=10.0.0.3
has "10.0.0.1,10.0.0.3" "$weft" vif show r1-0
has '"locked"' "$weft" vif show r1-0 --json
has "22,8000-8010" "$weft" policy show base
"$weft" rule set base/ssh ports= log=yes
hasnot "ports" "$weft" rule show base/ssh
"$weft" rule set base/ssh log=
has "log                    no" "$weft" rule show base/ssh
"$weft" network set ng name=new-ng
has "new-ng" "$weft" vif list
has "rule base/ssh of policy base, by the network team; default part, scope global" "$weft" trace --cookie "$(cookie_of base/ssh)"
has '"object": "rule base/ssh"' "$weft" trace --cookie "$(cookie_of base/ssh)" --json
has "not ours" "$weft" trace --cookie 7
refuses "cookie: " "$weft" trace --cookie ssh
refuses "cookie: " "$weft" trace --cookie 7/x
refuses "cookie: " "$weft" trace --cookie ""
"$weft" rule remove base/ping base/ssh
hasnot "ssh" "$weft" rule list
"$weft" pool set default_action=allow
has "allow" "$weft" pool show
"$weft" host add h1 ovsdb=unix:/nowhere/db.sock openflow=unix:/nowhere/br.mgmt enabled=no
has "h1" "$weft" status
has "generation" "$weft" status --json
has "h1 is not connected, and will have it later" "$weft" host set h1 enabled=yes --wait
"$weft" host set h1 enabled=no --wait
"$weft" group set everyone addresses+=192.0.2.1 addresses+=192.0.2.2,192.0.2.3 addresses-=10.0.0.0/8
has "192.0.2.1,192.0.2.2,192.0.2.3,fd00::/8" "$weft" group show everyone
exits 2 "$weft" group set everyone addresses=10.0.0.0/8 addresses+=192.0.2.1
exits 2 "$weft" network set nr mtu=1400 mtu=1500
exits 2 "$weft" tenant add blue name=green
"$weft" group set everyone addresses=10.0.0.0/8,fd00::/8
"$weft" tenant add ..
has ".." "$weft" tenant show ..
"$weft" tenant remove ..
LINES

check refusals "what is wrong is named, and nothing changes" all <<'LINES'
before=$("$weft" policy export)
refuses "network x: tag: " "$weft" network add x type=vlan tag=4095
refuses "network x: tag: " "$weft" network add x type=vlan tag=10
refuses "network x: vni: " "$weft" network add x type=overlay vni=7
refuses "network x: vni: " "$weft" network add x type=overlay vni=16777216
refuses "network x: vni: " "$weft" network add x type=vlan tag=9 vni=9
refuses "network x: tag: " "$weft" network add x type=vlan
refuses "network x: mtu: " "$weft" network add x type=vlan tag=9 mtu=9
refuses "network x: type: " "$weft" network add x type=carpet
refuses "network a/b: name: " "$weft" network add a/b type=vlan tag=9
refuses "vif x: mac: " "$weft" vif add x vm=g1 network=new-ng mac=02:00:00:00:00:02
refuses "vif x: mac: " "$weft" vif add x vm=g1 network=new-ng mac=03:00:00:00:00:09
refuses "vif x: network: " "$weft" vif add x vm=r1 network=new-ng mac=02:00:00:00:00:09
refuses "vif x: vm: " "$weft" vif add x vm=none network=nr mac=02:00:00:00:00:09
refuses "vif x: ipv4_allowed: " "$weft" vif add x vm=r1 network=nr mac=02:00:00:00:00:09 ipv4_allowed=10.0.0.256
refuses "vif x: ipv4_allowed: " "$weft" vif add x vm=r1 network=nr mac=02:00:00:00:00:09 ipv4_allowed=fd00::1
refuses "vif x: xs_uuid: " "$weft" vif add x vm=r1 network=nr mac=02:00:00:00:00:09 xs_uuid=7
refuses "host x: ovsdb: " "$weft" host add x ovsdb=ssl:somewhere:6640
refuses "host x: tunnel_ip: " "$weft" host add x ovsdb=unix:/x tunnel_ip=10.0.0.0/8
refuses "group everyone: groups: " "$weft" group set everyone groups=everyone
refuses "group everyone: addresses: " "$weft" group set everyone addresses=10.0.0.1/8
refuses "group gr: vms: " "$weft" group set gr vms=r1,g1
refuses "policy x: vm: " "$weft" policy add x scope=vm
refuses "policy x: vm: " "$weft" policy add x scope=global vm=r1
refuses "rule base/x: ports: " "$weft" rule add base/x order=1 direction=in action=allow protocol=tcp ports=20-10
refuses "rule base/x: ports: " "$weft" rule add base/x order=1 direction=in action=allow ports=80
refuses "rule base/x: order: " "$weft" rule add base/x order=2500 direction=in action=allow
refuses "rule base/x: remote_group: " "$weft" rule add base/x order=1 direction=in action=allow remote_group=none
refuses "rule base/x: remote_cidrs: " "$weft" rule add base/x order=1 direction=in action=allow remote_cidrs=10.0.0.1/8
refuses "rule base/x: icmp_type: " "$weft" rule add base/x order=1 direction=in action=allow protocol=tcp icmp_type=8
refuses "user x: role: " "$weft" user add x role=king
refuses "user x: tenant: " "$weft" user add x role=tenant
refuses "network x: tenant: " "$weft" network add x type=vlan tag=9 tenant=blue
refuses "it exists already" "$weft" network add nr type=vlan tag=11
refuses "no network \"none\"" "$weft" network show none
refuses "tenant" "$weft" tenant remove red
refuses "group everyone: addresses: " "$weft" group set everyone addresses=10.0.0.0/33
refuses "group" "$weft" group set gr groups=everyone
refuses "vif r1-0: mac: " "$weft" vif set r1-0 mac=02:00
refuses "rule base/x: ports: " "$weft" rule add base/x order=1 direction=in action=allow protocol=tcp ports=70000
refuses "rule none/x" "$weft" rule add none/x order=1 direction=in action=allow
refuses "only the controller sets it" "$weft" host set h1 error=no
exits 2 "$weft" network add x tpye=vlan
exits 2 "$weft" network add x tag=ten
exits 2 "$weft" network add
exits 2 "$weft" network set nr
exits 2 "$weft" network ad
exits 2 "$weft" policy commit x --confirm soon
exits 2 "$weft" trace --from r1-0 --to g1-0 --tcp 80 --udp 80
exits 2 "$weft" trace --capture r1-0 --to g1-0
exits 2 "$weft" trace --cookie 7 --from r1-0
exits 0 "$weft" network add --help
exits 1 "$weft" network list --controller "unix:$dir/nothing"
exits 1 "$weft" network list --controller "https://127.0.0.1:$port"
[ "$before" = "$("$weft" policy export)" ]
LINES
check description "what is answered is in openapi.json" all <<'LINES'
"$weft" rule add base/ssh order=10 direction=in action=allow protocol=tcp ports=22
"$weft" mirror add m vifs=r1-0 output_ip=192.0.2.9
"$weft" exporter add e protocol=ipfix targets=127.0.0.1:4739
"$weft" pif add p host=h1 device=eth0
"$weft" bond add b host=h1 interfaces=eth0,eth1
"$weft" user add root role=admin
tests/smoke/rest_schema.py "$dir/weft-controllerd.rest"
"$weft" user remove root
"$weft" bond remove b
"$weft" pif remove p
"$weft" exporter remove e
"$weft" mirror remove m
"$weft" rule remove base/ssh
LINES

export_changed() { # a document with another tag for nr
    "$weft" policy export | sed 's/"tag": 10$/"tag": 12/' >"$dir/new.json"
}
tag_is() { has "\"tag\": $1" "$weft" network show nr --json; }
check documents "documents are checked, committed, confirmed, rolled back" all <<'LINES'
"$weft" policy export "$dir/old.json"
export_changed
has "0 errors" "$weft" policy check "$dir/new.json"
tag_is 10
"$weft" policy commit "$dir/new.json" --confirm 60s
tag_is 12
refuses "waits for its confirmation" "$weft" vm add x
has "rolls back in" "$weft" status
"$weft" policy rollback --wait
tag_is 10
"$weft" policy commit "$dir/new.json" --confirm 1m
"$weft" policy confirm
tag_is 12
exits 1 "$weft" policy confirm
"$weft" policy import "$dir/old.json" --wait
tag_is 10
sed 's/"tag": 12/"tag": 5000/' "$dir/new.json" >"$dir/bad.json"
exits 1 "$weft" policy check "$dir/bad.json"
refuses "tag" "$weft" policy import "$dir/bad.json"
echo '{' >"$dir/bad.json"
refuses "line 2" "$weft" policy import "$dir/bad.json"
tag_is 10
"$weft" policy export - | "$weft" policy import -
"$weft" rule add base/all order=1 direction=in action=deny
"$weft" rule add base/late order=2 direction=in action=allow protocol=tcp ports=80
refuses "base/late: unreachable: base/all" "$weft" policy lint
"$weft" rule remove base/all base/late
exits 0 "$weft" policy lint
ln -s /dev/stdout "$dir/out"; "$weft" policy export "$dir/out" | "$weft" policy import -; [ -L "$dir/out" ]
LINES

check deadline "what nobody confirms rolls back" all <<'LINES'
"$weft" policy commit "$dir/new.json" --confirm 2s
tag_is 12
within 8 tag_is 10
LINES

kill_controller() {
    kill -KILL "${pids[1]}"
    wait "${pids[1]}" 2>/dev/null
    return 0
}
check restart "also if the controller is killed in between" all <<'LINES'
"$weft" policy commit "$dir/new.json" --confirm 3s
kill_controller
sleep 3.2
controller
within 8 tag_is 10
"$weft" policy commit "$dir/new.json" --confirm 60s
kill_controller
controller
tag_is 12
"$weft" policy confirm
tag_is 12
"$weft" policy import "$dir/old.json"
LINES

check roles "a certificate's role is what counts" all <<'LINES'
as root has "generation" "$weft" status
as vera has "nr" "$weft" network list
as vera refuses "role viewer" "$weft" network set nr mtu=1400
as olga "$weft" network set nr mtu=1400
as olga refuses "role operator" "$weft" host set h1 uplink=eth0
as olga refuses "role operator" "$weft" user list
as red1 has "nr" "$weft" network list
as red1 hasnot "new-ng" "$weft" network list
as red1 "$weft" rule add mine/web order=1 direction=in action=allow protocol=tcp ports=80
as red1 refuses "there is no policy" "$weft" policy show base
as red1 refuses "only what is its own" "$weft" policy add p scope=global
as alice refuses "role viewer" "$weft" vm add x
as root "$weft" user add alice role=operator
as alice "$weft" vm add x
as root "$weft" user set alice enabled=no
as alice refuses "no role" "$weft" vm list
as olga "$weft" policy export "$dir/operator.json"
hasnot alice cat "$dir/operator.json"
as olga "$weft" policy import "$dir/operator.json"
as root has "alice" "$weft" user list
LINES

# shellcheck disable=SC2034 # in the lines below
outside="https://127.0.0.1:$((port + 1))"
# shellcheck disable=SC2034
session=$dir/state/weft/session
check sessions "a token stands for a certificate, for a while" all <<'LINES'
as root "$weft" user set alice enabled=yes role=tenant tenant=red
refuses "no enabled user" "$weft" login --user nobody
refuses "needs --ca-cert" "$weft" login --user alice --at "$outside"
as alice has "43200 s" "$weft" login --at "$outside"
[ "$(stat -c %a "$session")" = 600 ]
has "nr" "$weft" network list
hasnot "new-ng" "$weft" network list
refuses "only what is its own" "$weft" policy add p scope=global
has "alice" "$weft" session list
as root has "new-ng" "$weft" network list
cp "$session" "$dir/stolen"
chmod 644 "$session"
refuses "mode 0600" "$weft" network list
chmod 600 "$session"
"$weft" logout
[ ! -e "$session" ]
refuses "no session here" "$weft" logout
cp "$dir/stolen" "$session"
chmod 600 "$session"
refuses "no session has this token" "$weft" network list
rm "$session"
as root "$weft" login --user alice --json >"$dir/alice"
as root "$weft" session end "$(sed -n 's/.*"id": "\(.*\)".*/\1/p' "$dir/alice")"
as root hasnot "alice" "$weft" session list
as root refuses "no session" "$weft" session end 0123456789abcdef
hasnot "$(sed -n 's/.*"token": "\(.*\)".*/\1/p' "$dir/alice")" cat "$dir/weft-audit.log" "$dir/controller.log"
as root "$weft" user remove alice
LINES

elsewhere() { # by a name that its certificate does not hold
    "$weft" status --controller "https://localhost:$port" --ca-cert "$WEFT_PKI/ca.crt" \
        --certificate "$WEFT_PKI/root.crt" --private-key "$WEFT_PKI/root.key"
}
check certificates "who may not come in does not" all <<'LINES'
"$weft" pki init "$dir/other"
"$weft" pki user root --role admin --dir "$dir/other"
cp "$dir/other/root.crt" "$WEFT_PKI/fake.crt"; cp "$dir/other/root.key" "$WEFT_PKI/fake.key"
as fake refuses "no answer" "$weft" status
as gone refuses "no answer" "$weft" status
as controller refuses "no role" "$weft" status
refuses "no answer" elsewhere
LINES

check rotation "certificates change under a running controller" all <<'LINES'
"$weft" pki rotate controller
"$weft" pki rotate root
sleep 2
as root has "generation" "$weft" status
"$weft" pki revoke vera
within 5 exits 1 as vera "$weft" status
LINES

tampered() {
    sed 's/"user": "olga"/"user": "root"/' "$dir/weft-audit.log" >"$dir/tampered"
    ! "$weft" audit "$dir/tampered"
}
check audit "the log is whole, and shows when it is not" all <<'LINES'
has "none changed" "$weft" audit "$dir/weft-audit.log"
grep -q '"user": "olga".*"status": 403' "$dir/weft-audit.log"
grep -q '"user": "weft-controllerd".*not confirmed in time' "$dir/weft-audit.log"
tampered
LINES

kill "${pids[1]}"
wait "${pids[1]}" 2>/dev/null
check end "nothing is left" test ! -e "$dir/weft-controllerd.rest"
grep -E 'EMER|ERR' "$dir/controller.log" && failed=1
exit $failed
