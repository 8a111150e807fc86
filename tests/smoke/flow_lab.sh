#!/bin/bash
# Recorded and explained: guests of two hosts talk, weft-flowd collects what their
# switches export, and "weft flow" says who it was, counted once, and what was
# denied, by which rule, and whose that is.
#
#   h1 (weft)     weft-flowd     h2 (weft)
#    g1 10.1.0.1                  g2 10.1.0.2       red-lan, VLAN 10
# shellcheck disable=SC2317 # what check and until_true call
set -u
cd "$(dirname "$0")/../.." || exit 1
suite=flow_lab
. tests/smoke/lib.bash
need_root "a lab"

name=pfl$$
lab=$dir/lab
W() {
    local command=$1
    shift
    "$bin/weft" lab "$command" --name "$name" --dir "$lab" "$@"
}
pool() { W exec pool -- weft "$@"; }
flow() { pool flow "$@"; }
row() { # PATTERN COMMAND...: one line of its output matches, blanks being one
    local pattern=$1
    shift
    "$@" 2>&1 | tr -s ' ' | grep -E -- "$pattern" || { "$@"; return 1; }
}
named() { flow status --json | grep -q '"generation": [1-9]'; }
ping_of() { W exec g1 -- ping -q -c "$1" -i 0.1 -w 20 10.1.0.2; }
both() { [ "$(flow list --json "src 10.1.0.1 and proto icmp and host $1" | grep -c '"packets"')" -gt 0 ]; }

at_end 'W down'
check up W up --pool --hosts 2 --guests 1
check names until_true 10 named
cat >"$dir/policy.json" <<'END'
{ "version": 1, "policies": [ { "name": "base", "scope": "pool", "author": "alice", "rules": [
  { "name": "out", "order": 1, "direction": "out", "action": "allow" },
  { "name": "no-ssh", "order": 2, "direction": "in", "action": "deny",
    "protocol": "udp", "ports": [ "22" ] },
  { "name": "in", "order": 3, "direction": "in", "action": "allow" } ] } ] }
END
sed 's/"udp"/"icmp"/; s/"ports": \[ "22" \]/"icmp_type": 8/' "$dir/policy.json" >"$dir/no-ping.json"
check import pool policy import - --wait <"$dir/policy.json"
check exporter pool exporter set flows active_timeout=1 --wait
check status row '^flowd running [0-9]+ 0$' W status

# Until both hosts are known as exporters packets may count twice.
check ping ping_of 3
check h1-exports until_true 10 both h1
check h2-exports until_true 10 both h2
before=$(date +%s.%N)
pause
check more-pings ping_of 10
ten() { # HOST: saw ten of them since
    local said
    said=$(flow list --json --from "$before" "src 10.1.0.1 and proto icmp and host $1")
    [ "$(grep -oP '"packets": \K[0-9]+' <<<"$said" | awk '{ n += $1 } END { print n }')" = 10 ]
}
check each-on-h1 until_true 10 ten h1
check each-on-h2 until_true 10 ten h2
check counted-once row '^g1-eth0 g2-eth0 icmp .* 10 ' \
    flow top --by src_vif,dst_vif,proto --from "$before" src 10.1.0.1 and proto icmp

check arp row ' arp 02:.* g1-eth0 .* red-lan ' flow list ethertype 2054

# Denied where it arrives, behind the tag of the wire.
knock() {
    for _ in 1 2 3 4 5 6 7 8; do
        W exec g1 -- bash -c 'echo >/dev/udp/10.1.0.2/22'
        pause
    done
}
denied() { row '^(dp_)?policy.* base/no-ssh .*alice' flow why-dropped --from "$before"; }
knock
check why-dropped until_true 10 denied

# What another policy would have done to them.
shadow() { pool policy shadow "$@" --stored 1h; }
check shadow-same row ' 0 newly denied, 0 newly allowed' shadow "$dir/policy.json"
check shadow row ' 1 newly denied' shadow "$dir/no-ping.json"
check shadow-csv row '^icmp,.*,8,0,g1-eth0,10.1.0.1,g2-eth0,10.1.0.2,.*,allow,.*,deny,' \
    shadow "$dir/no-ping.json" --csv
check shadow-names row '^ then: deny, .*base/no-ssh.*alice' shadow "$dir/no-ping.json"
finish
