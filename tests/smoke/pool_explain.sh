#!/bin/bash
# Who decided: "weft trace" says what packets then do, rules with their log flag
# are reported from a host with our switch and from one with the distribution's,
# and "weft policy shadow" says what another policy would do with pings that are
# under way.
#
#   h1 (weft)          h2 (ovs-vswitchd)
#    g1 10.1.0.1        g2 10.1.0.2       red-lan, VLAN 10
# shellcheck disable=SC2317 # what check and until_true call
set -u
cd "$(dirname "$0")/../.." || exit 1
suite=pool_explain
. tests/smoke/lib.bash
need_root "a lab"

name=pex$$
lab=$dir/lab
W() {
    local command=$1
    shift
    "$bin/weft" lab "$command" --name "$name" --dir "$lab" "$@"
}
pool() { W exec pool -- weft "$@"; }
# fails_with TEXT COMMAND...: it fails, and says so.
fails_with() {
    local text=$1 said
    shift
    said=$("$@" 2>&1) && { echo "did not fail: $said"; return 1; }
    [[ $said == *"$text"* ]] || { echo "$said"; return 1; }
}
says() {
    local text=$1 said
    shift
    said=$("$@" 2>&1) || { echo "failed: $said"; return 1; }
    [[ $said == *"$text"* ]] || { echo "$said"; return 1; }
}
logged() { pool policy log | grep -F -- "$1"; }
connect() { # GUEST ADDRESS PORT
    W exec "$1" -- timeout 2 bash -c "exec 3<>/dev/tcp/$2/$3"
}
ping_of() { W exec g1 -- ping -q -c 1 -w 10 10.1.0.2; }

stock=$(tests/stock_ovs.sh 2>"$dir/said") || {
    echo "skip $suite: no stock ovs-vswitchd: $(tail -n 1 "$dir/said")"
    exit 0
}
at_end 'W down'
check up W up --pool --hosts 2 --guests 1 --stock 1 --stock-vswitchd "$stock"
cat >"$dir/policy.json" <<'END'
{ "version": 1, "policies": [ { "name": "base", "scope": "pool", "author": "alice", "rules": [
  { "name": "out", "order": 1, "direction": "out", "action": "allow" },
  { "name": "no-ssh", "part": "mandatory", "order": 2, "direction": "in", "action": "deny",
    "protocol": "tcp", "ports": [ "22" ], "log": true },
  { "name": "ping", "order": 3, "direction": "in", "action": "allow", "protocol": "icmp",
    "log": true },
  { "name": "rest", "order": 4, "direction": "in", "action": "deny" } ] } ] }
END
sed 's/"name": "ping", "order": 3, "direction": "in", "action": "allow"/"name": "ping", "order": 3, "direction": "in", "action": "deny"/' \
    "$dir/policy.json" >"$dir/other.json"
check import pool policy import - --wait <"$dir/policy.json"

check trace-pass says 'verdict: delivered to vif g2-eth0, on host h2' \
    pool trace --from g1-eth0 --to g2-eth0
check trace-both-sides says \
    "destination's side: allowed by rule base/ping of policy base, by alice; default part, scope pool" \
    pool trace --from g1-eth0 --to g2-eth0
check ping ping_of
check trace-denied fails_with \
    "denied on the destination's side by rule base/no-ssh of policy base, by alice; mandatory part, scope pool" \
    pool trace --from g1-eth0 --to g2-eth0 --tcp 22
refuse denied connect g1 10.1.0.2 22
check trace-reply says 'established, reply' pool trace --from g1-eth0 --to g2-eth0 --state reply
check trace-json says '"verdict": "delivered"' pool trace --from g1-eth0 --to 10.1.0.2 --json
# as_described SCHEMA COMMAND...: what is answered is as openapi.json says.
as_described() {
    "${@:2}" | tests/smoke/rest_schema.py "$lab/pool/run/weft-controllerd.rest" "$1"
}
check trace-described as_described trace pool trace --from g1-eth0 --to g2-eth0 --json
check trace-denied-described as_described trace pool trace --from g1-eth0 --to g2-eth0 --tcp 22 --json
check trace-spoofed fails_with 'vif g1-eth0 is locked' \
    pool trace --from g1-eth0 --to g2-eth0 --source 10.1.0.9
check trace-nobody fails_with 'there is no vif "nobody"' pool trace --from nobody --to g2-eth0

check log-stock until_true 10 logged 'h2 deny  in  base/no-ssh: tcp 10.1.0.1:'
check log-allowed until_true 10 logged 'h2 allow in  base/ping: icmp type 8 code 0 10.1.0.1 > 10.1.0.2'
refuse denied-back connect g2 10.1.0.1 22
check log-weft until_true 10 logged 'h1 deny  in  base/no-ssh: tcp 10.1.0.2:'
check log-names until_true 10 logged 'from vif g2-eth0, to vif g1-eth0'
check log-described as_described log_entry pool policy log --json
# The cookie of the flow that denies, as an administrator of the switch sees it.
cookie() { W exec h2 -- ovs-ofctl -O OpenFlow15 dump-flows xenbr0 | sed -n 's/.*cookie=\(0x[0-9a-f]*\),.*tp_dst=22 .*/\1/p' | sort -u; }
check cookie says 'rule base/no-ssh of policy base, by alice; mandatory part, scope pool' \
    pool trace --cookie "$(cookie)"

# A ping a second, each a connection of its own.
(while ping_of; do pause; done) >/dev/null 2>&1 &
started $!
check shadow fails_with '1 newly denied' pool policy shadow "$dir/other.json" --seconds 2
check shadow-names fails_with 'by rule base/ping of policy base, by alice' \
    pool policy shadow "$dir/other.json" --seconds 2
check shadow-described as_described scored \
    pool policy shadow "$dir/other.json" --seconds 1 --json
check shadow-same says '0 newly denied, 0 newly allowed' \
    pool policy shadow "$dir/policy.json" --seconds 2
check nothing-changed ping_of

check capture says 'connection: ' pool trace --capture g1-eth0 --protocol icmp
check capture-verdict says 'verdict: delivered to vif g2-eth0, on host h2' \
    pool trace --capture g1-eth0 --protocol icmp
check capture-reply says 'connection: established, reply' \
    pool trace --capture g2-eth0 --protocol icmp
check capture-described as_described captured_packet pool trace --capture g1-eth0 --protocol icmp --json
check capture-none fails_with 'no such packet was seen' \
    pool trace --capture g1-eth0 --udp 9 --seconds 1
no_taps() {
    local flows
    flows=$(W exec "$1" -- ovs-ofctl -O OpenFlow15 dump-flows xenbr0) || return 1
    [[ $flows == *table=40* && $flows != *hard_timeout* ]] || { echo "$flows"; return 1; }
}
check taps-end-h1 until_true 20 no_taps h1
check taps-end-h2 until_true 20 no_taps h2
finish
