#!/bin/bash
# Known traffic through a switch that exports its flows: collectors count, per
# 5-tuple, exactly the packets and L3 bytes that a capture of it has.
#
#   va =swva- br0 -swvb= vb            tcpreplay sends from va; iperf3 and a scan
#          - br0 -swva- tcpdump        from va's host to vb's, at the same time
#              weft-vswitchd > v5 and IPFIX, then v9 > nfcapd, nfacctd, weft-flowd, tshark
#
# The captures are tcpdump's of what came in at the vifs.
#
# All of it in network namespaces of its own.
# shellcheck disable=SC2317 # what check and until_true call
set -u
cd "$(dirname "$0")/../.." || exit 1
if [ "$(id -u)" -eq 0 ] && [ -z "${FLOWS_TEST_INSIDE:-}" ]; then
    FLOWS_TEST_INSIDE=1 exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" "$@"
fi
suite=flows
. tests/smoke/lib.bash
need_root "a network namespace"
for tool in nfcapd nfdump nfacctd tshark tcpreplay tcpdump iperf3; do
    type "$tool" >/dev/null 2>&1 || give_up "$tool is not installed"
done
schema=build/share/vswitch.ovsschema
export OVS_RUNDIR=$dir OVS_LOGDIR=$dir OVS_DBDIR=$dir
vsctl() { "$bin/ovs-vsctl" --timeout=20 "$@"; }
appctl() { "$bin/ovs-appctl" --timeout=20 "$@"; }
traffic() { /usr/bin/python3 tests/smoke/flows_traffic.py "$@"; }

# --- a switch ------------------------------------------------------------------------
ip link set lo up
for v in va vb; do
    ip link add "$v" type veth peer name "sw$v"
    for i in "$v" "sw$v"; do
        sysctl -qw "net.ipv6.conf.$i.disable_ipv6=1"
        ip link set "$i" up
    done
    ethtool -K "$v" tx off >/dev/null 2>&1
done
unshare --net sleep 3600 & # vb's host
peer=$!
started $peer
apart() { [ "$(readlink "/proc/$peer/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
until_true 5 apart || give_up "no second network namespace"
ip link set vb netns $peer
in_peer() { nsenter -t $peer -n "$@"; }
sysctl -qw net.ipv6.conf.va.disable_ipv6=0
ip addr add 10.2.0.1/24 dev va
ip addr add fd02::1/64 dev va nodad
for i in lo vb; do in_peer ip link set $i up; done
in_peer ip addr add fd02::2/64 dev vb nodad
for i in 2 3 4 5; do in_peer ip addr add 10.2.0.$i/24 dev vb; done
# Neighbours are not probed behind the captures' end.
sysctl -qw net.ipv6.neigh.va.delay_first_probe_time=3600
in_peer sysctl -qw net.ipv6.neigh.vb.delay_first_probe_time=3600
"$bin/ovsdb-tool" create "$dir/conf.db" "$schema"
"$bin/ovsdb-server" "$dir/conf.db" --remote="punix:$dir/db.sock" --pidfile --detach --no-chdir \
    --log-file -vconsole:off || give_up "no database"
vsctl --no-wait init
vsctl --no-wait set Open_vSwitch . other_config:dpdk-init=true \
    other_config:dpdk-extra=--no-pci other_config:weft-small-mbufs=4096 other_config:weft-large-mbufs=512 other_config:weft-plug=false
nice -n -10 "$bin/weft-vswitchd" --pidfile --detach --no-chdir --log-file -vconsole:off 2>"$dir/stderr" ||
    give_up "weft-vswitchd does not start: $(tail -n 1 "$dir/stderr")"
vsctl add-br br0 -- set bridge br0 datapath_type=weft other_config:hwaddr=02:00:00:00:00:99 \
    -- add-port br0 swva -- set interface swva ofport_request=11 \
    external_ids:xs-vif-uuid=vif-a external_ids:xs-vm-uuid=vm-a external_ids:weft-vif-key=701 \
    -- add-port br0 swvb -- set interface swvb ofport_request=12 external_ids:weft-vif-key=702 \
    -- add-port br0 vxlan -- set interface vxlan type=vxlan ofport_request=21 \
    options:remote_ip=flow options:key=flow \
    -- add-port br0 geneve -- set interface geneve type=geneve ofport_request=22 \
    options:remote_ip=flow options:key=flow
sysctl -qw net.ipv6.conf.br0.disable_ipv6=1
ip addr add 10.3.0.1/24 dev br0
ip link set br0 up
cat >"$dir/of" <<'END'
priority=20,tcp,tp_dst=9999,actions=sample(probability=65535,collector_set_id=1,obs_domain_id=2,obs_point_id=4242)
priority=15,in_port=11,ip,nw_dst=10.3.0.1,actions=LOCAL
priority=10,in_port=11,actions=output:12
priority=10,in_port=12,actions=output:11
priority=10,in_port=21,actions=output:12
priority=10,in_port=22,actions=output:12
END
"$bin/ovs-ofctl" --bundle replace-flows br0 "$dir/of"

# --- collectors --------------------------------------------------------------------------
collect() { # NAME PORT: nfcapd at PORT, nfacctd at PORT + 1
    mkdir "$dir/$1"
    nfcapd -w "$dir/$1" -p "$2" -b 127.0.0.1 -t 3600 >"$dir/$1.log" 2>&1 &
    started $!
    collector_pid[$1]=$!
    cat >"$dir/$1.conf" <<END
daemonize: false
nfacctd_ip: 127.0.0.1
nfacctd_port: $(($2 + 1))
plugins: print
aggregate: src_host, dst_host, src_port, dst_port, proto
print_output: csv
print_output_file: $dir/$1.csv
print_output_file_append: true
print_refresh_time: 1
END
    nfacctd -f "$dir/$1.conf" >"$dir/$1.nfacctd" 2>&1 &
    started $!
}
declare -A collector_pid
collect v5 9000
collect ipfix 9010
collect v9 9020
export WEFT_PKI=$dir/pki # IPFIX for weft-flowd goes over mutual TLS
for name in init flowd switch; do
    case $name in
    init) "$bin/weft" pki init "$WEFT_PKI" ;;
    *) "$bin/weft" pki host "$name" --address 127.0.0.1 ;;
    esac >>"$dir/pki.log" 2>&1 || give_up "no certificates: $(tail -n 1 "$dir/pki.log")"
done
"$bin/weft-flowd" --listen=udp:9002:127.0.0.1 --listen=tls:9012:127.0.0.1 \
    --listen=udp:9022:127.0.0.1 --private-key="$WEFT_PKI/flowd.key" \
    --certificate="$WEFT_PKI/flowd.crt" --ca-cert="$WEFT_PKI/ca.crt" --print >"$dir/weft.json" 2>"$dir/weft.log" &
collector_pid[weft]=$!
started "${collector_pid[weft]}"
tshark -Q -i lo -w "$dir/wire.pcap" -f 'udp and portrange 9000-9030' >"$dir/tshark.log" 2>&1 &
tshark_pid=$!
started $tshark_pid
listening() { [ "$(ss -Hlntu 'sport >= 9000 and sport <= 9030' | wc -l)" -eq 9 ]; }
until_true 10 listening || give_up "collectors do not listen"
captures() { [ -s "$dir/wire.pcap" ]; }
until_true 30 captures || give_up "tshark does not capture: $(tail -n 1 "$dir/tshark.log")"

# --- flows ----------------------------------------------------------------------------------
traffic write "$dir/t.pcap"
for port in 5201 5202 5203; do
    in_peer iperf3 -s -p $port >"$dir/iperf3-$port" 2>&1 &
    started $!
done
serves() { [ "$(in_peer ss -Hlnt 'sport >= 5201 and sport <= 5203' | wc -l)" -eq 3 ]; }
until_true 10 serves || give_up "iperf3 does not listen"
# Slowly, and by small windows: a switch that is preempted for long has a socket
# buffer of some 250 small frames, or 90 large ones.
live() {
    traffic scan 10.2.0.2 fd02::2 10.2.0.3 10.2.0.4 10.2.0.5 &&
        iperf3 -p 5201 -c 10.2.0.2 -n 300K -P 2 -w 8K &&
        iperf3 -p 5202 -c fd02::2 -n 200K -w 16K -R &&
        iperf3 -p 5203 -c 10.2.0.2 -u -b 80K -n 10K -l 100
}
declare -A tcpdump_pid
capture() { # TURN
    local v
    for v in va vb; do
        tcpdump -i "sw$v" -Q in -s 2048 -B 16384 -U --immediate-mode -w "$dir/$1.$v.pcap" 2>"$dir/$1.$v.log" &
        tcpdump_pid[$v]=$!
        started $!
    done
    captured=("$dir/$1.va.pcap" "$dir/$1.vb.pcap")
    until_true 30 capturing "$1"
}
capturing() { grep -q 'listening on' "$dir/$1.va.log" && grep -q 'listening on' "$dir/$1.vb.log"; }
captured_all() { # TURN: nothing was lost to tcpdump
    local v
    for v in va vb; do
        smoke_kill "${tcpdump_pid[$v]}"
        grep -q '^0 packets dropped by kernel' "$dir/$1.$v.log" || return 1
    done
}
turn() { # all traffic
    local replayed
    tcpreplay -q --pps=120 -i va "$dir/t.pcap" >"$dir/replay" 2>&1 &
    replayed=$!
    live >"$dir/live" 2>&1 || { tail -n 3 "$dir/live"; return 1; }
    wait "$replayed"
}
weft_counts() { # PROTOCOL v4|all PCAP...
    traffic check "weft$1" "$2" "$dir/weft.json" "${@:3}"
}
counts_soon() { sleep 0.4 && weft_counts "$@"; }

capture 1 || give_up "tcpdump does not capture"
vsctl -- --id=@n create NetFlow 'targets=["127.0.0.1:9000","127.0.0.1:9001","127.0.0.1:9002"]' engine_id=7 \
    external_ids:weft-idle-timeout=1 \
    -- --id=@i create IPFIX 'targets=["127.0.0.1:9010","127.0.0.1:9011","tls:127.0.0.1:9012"]' obs_domain_id=77 \
    other_config:weft-private-key="$WEFT_PKI/switch.key" \
    other_config:weft-certificate="$WEFT_PKI/switch.crt" \
    other_config:weft-ca-cert="$WEFT_PKI/ca.crt" \
    -- set bridge br0 netflow=@n ipfix=@i >"$dir/rows"
shows() { appctl flow-export/show | grep -q 'domain 77'; }
check starts until_true 10 shows
check traffic turn
first=("${captured[@]}")
check v5-weft-flowd until_true 20 counts_soon 5 v4 "${first[@]}"
check captured captured_all 1

capture 2 || give_up "tcpdump does not capture"
vsctl -- set netflow . 'targets=["127.0.0.1:9020","127.0.0.1:9021","127.0.0.1:9022"]' external_ids:weft-version=v9
shows_v9() { appctl flow-export/show | grep -q 'NetFlow v9'; }
check turns-to-v9 until_true 10 shows_v9
check traffic-again turn
second=("${captured[@]}")
check v9-weft-flowd until_true 20 counts_soon 9 all "${second[@]}"
check captured-again captured_all 2
# IPFIX hears of both turns.
check ipfix-weft-flowd until_true 20 counts_soon 10 all "${first[@]}" "${second[@]}"
wide() { # OVS's own NetFlow would have made a flow of each 5-tuple
    [ "$(appctl dpctl/dump-flows | wc -l)" -lt 60 ]
}
check flows-stay-wide wide

# --- what collectors say -----------------------------------------------------------------------
nfdump_counts() { # VERSION v4|all PCAP...
    nfdump -q -N -6 -R "$dir/$1" -o 'fmt:%pr,%sa,%sp,%da,%dp,%pkt,%byt' \
        >"$dir/$1.nfdump" || return 1
    traffic check nfdump "$2" "$dir/$1.nfdump" "${@:3}"
}
nfacctd_counts() { traffic check nfacctd "$2" "$dir/$1.csv" "${@:3}"; }
for v in v5 ipfix v9 weft; do smoke_kill "${collector_pid[$v]}"; done
check v5-nfcapd nfdump_counts v5 v4 "${first[@]}"
check v5-nfacctd until_true 5 nfacctd_counts v5 v4 "${first[@]}"
check ipfix-nfcapd nfdump_counts ipfix all "${first[@]}" "${second[@]}"
check ipfix-nfacctd until_true 5 nfacctd_counts ipfix all "${first[@]}" "${second[@]}"
check v9-nfcapd nfdump_counts v9 all "${second[@]}"
check v9-nfacctd until_true 5 nfacctd_counts v9 all "${second[@]}"
# Of tunnels' packets the key of each network, and no record whose way is not known.
tunnel_keys() {
    grep '"protocol":10' "$dir/weft.json" | grep '"sport":800[01]' |
        grep -o '"tunnel_key":[0-9]*' | sort -u | tr -dc '0-9\n' | xargs |
        grep -qx '71 72 73'
}
check tunnel-keys tunnel_keys
way_known() { ! grep '"src"' "$dir/weft.json" | grep -Ev '"protocol":5|"forwarding"' | grep -m 3 .; }
check every-way-known way_known
# What the denying flow dropped says which rule, and why; the other, whose vifs.
says_why() {
    grep '"dport":9999' "$dir/weft.json" | grep '"forwarding":129' | grep -v '"drop":0' |
        grep '"rule_in":4242' && grep '"forwarding":64' "$dir/weft.json" |
        grep '"in_if":11' | grep '"out_if":12' | grep '"in_vif":701' | grep -q '"out_vif":702'
}
check drops-say-why says_why
nothing_lost() { # the last line of its log: totals
    tail -n 1 "$dir/weft.log"
    tail -n 1 "$dir/weft.log" | grep -q '"malformed":0,"unknown_protocol":0,.*"kernel_drops":0'
}
check weft-flowd-lost-nothing nothing_lost

smoke_kill "$tshark_pid"
decode() {
    tshark -r "$dir/wire.pcap" -d udp.port==9000-9030,cflow "$@"
}
no_complaint() {
    decode -Y '_ws.malformed || _ws.expert.severity >= "Warning"' >"$dir/complaints"
    [ ! -s "$dir/complaints" ] || { head -n 3 "$dir/complaints"; return 1; }
    decode -Y cflow -T fields -e cflow.version | sort | uniq -c >"$dir/versions"
    grep -q ' 5$' "$dir/versions" && grep -q ' 9$' "$dir/versions" && grep -q ' 10$' "$dir/versions"
}
check tshark-has-no-complaint no_complaint

# --- exporters of some networks ------------------------------------------------------------------
# swva is a vif's port in network 5, and with tag 30 in 7; swvb an uplink, whose VLAN 10 is
# network 5's and 20 6's, as are a tunnel's keys 71 and 72.  Who hears of all says when the
# others would have heard.
for p in 9032 9034 9036; do
    "$bin/weft-flowd" --listen=udp:$p:127.0.0.1 --print >"$dir/$p.json" 2>"$dir/$p.log" &
    started $!
done
scoped_listen() { [ "$(ss -Hlnu 'sport >= 9032 and sport <= 9036' | wc -l)" -eq 3 ]; }
until_true 10 scoped_listen || give_up "collectors of networks do not listen"
tcpdump -i lo -s 0 -U --immediate-mode -w "$dir/scope.pcap" 'udp portrange 9032-9036' 2>"$dir/scope.log" &
scope_pid=$!
started $scope_pid
scope_captures() { grep -q 'listening on' "$dir/scope.log"; }
until_true 10 scope_captures || give_up "tcpdump does not capture"
set_of() { # NAME ID PORT NETWORKS [OPTION...]
    echo "-- --id=@i$1 create IPFIX targets=[\"127.0.0.1:$3\"] obs_domain_id=$2 ${*:5}" \
        "-- create Flow_Sample_Collector_Set id=$2 bridge=@b ipfix=@i$1 external_ids:weft-networks=\"$4\""
}
bridge_row=$(vsctl get bridge br0 _uuid)
rows="$(set_of a 300 9032 5) $(set_of b 301 9034 6 other_config:weft-version=v9)"
# shellcheck disable=SC2086 # words
vsctl -- clear bridge br0 netflow \
    -- --id=@i create IPFIX 'targets=["127.0.0.1:9036"]' other_config:weft-idle-timeout=1 -- set bridge br0 ipfix=@i \
    -- set bridge br0 external_ids:weft-tenants='"5=91 6=92 7=93 7=94 x=1 8= 0=5"' \
    -- set interface swva external_ids:weft-network-key=5 external_ids:weft-network-tags=30=7 \
    -- set interface swvb external_ids:weft-network-tags='"10=5 20=6"' \
    -- set interface vxlan external_ids:weft-network-tags='"71=5 72=6"' \
    ${rows//@b/$bridge_row} >"$dir/rows"
scopes() {
    appctl flow-export/show | grep -q 'domain 300, of networks 5$' &&
        appctl flow-export/show | grep -q 'domain 301, of networks 6$'
}
check exports-networks until_true 10 scopes
scoped_traffic() {
    traffic send va 7001 && traffic send va 7002 30 && in_peer_send vb 7003 10 &&
        in_peer_send vb 7004 20 && in_peer_send vb 7005 40 && in_peer_send vb 7006 &&
        traffic send va 7007 "" 71 && traffic send va 7008 "" 72 && traffic send va 7009 "" 73
}
in_peer_send() { in_peer /usr/bin/python3 tests/smoke/flows_traffic.py send "$@"; }
check traffic-of-networks scoped_traffic
heard() { # PORT: the marks of the packets that its collector has heard of
    grep -o '"dport":700[0-9]' "$dir/$1.json" | grep -o '[0-9]$' | sort -u | tr -d '\n'
}
all_heard() { [ "$(heard 9036)" = 123456789 ]; }
check all-networks-to-the-bridges until_true 20 all_heard
# Whose each network is; of network 7 two are said, so neither.
tenants() {
    grep -o '"dport":700[0-9].*' "$dir/9036.json" |
        sed -nE 's/^"dport":700([0-9]).*"network":([0-9]+),"tenant":([0-9]+).*/\1:\2=\3/p' | sort -u | xargs
}
check tenants-of-networks test "$(tenants)" = "1:5=91 3:5=91 4:6=92 7:5=91 8:6=92"
heard_only() { [ "$(heard "$1")" = "$2" ]; }
check network-5-from-its-vif-and-from-outside until_true 5 heard_only 9032 137
check network-6-alone until_true 5 heard_only 9034 48
# Nor do its collectors learn the names of other networks' vifs.
smoke_kill "$scope_pid"
names() { tcpdump -r "$dir/scope.pcap" -w - "udp dst port $1" 2>/dev/null | grep -qa "$2"; }
own_names() {
    names 9032 swva && names 9032 vxlan && names 9034 swvb && not names 9034 swva &&
        not names 9032 geneve && names 9036 geneve
}
check names-of-its-ports-alone own_names
# From then on what the vif sends is another network's.
vsctl set interface swva external_ids:weft-network-key=6
sends() { traffic send va 7001; }
hands() { sends && pause 0.3 && heard_only 9034 148; }
check another-network until_true 20 hands
records() { grep -c '"dport":7001' "$dir/$1.json"; }
one_more() { [ "$(records 9034)" -gt "$others" ]; }
no_more() {
    local own
    own=$(records 9032) others=$(records 9034)
    sends && until_true 10 one_more && [ "$(records 9032)" -eq "$own" ]
}
check no-more-to-the-one-before no_more

# With a bond the controller puts the uplink's devices into a bridge of their own: what comes
# in there comes in at the patch port in the uplink's place.
vsctl del-port swvb \
    -- add-port br0 up -- set interface up type=patch options:peer=out ofport_request=15 \
    external_ids:weft-network-tags='"10=5 20=6"' \
    -- add-br weft-uplink -- set bridge weft-uplink datapath_type=weft external_ids:weft-controller=uplink \
    -- add-port weft-uplink out -- set interface out type=patch options:peer=up \
    -- add-port weft-uplink swvb
"$bin/ovs-ofctl" del-flows br0 && "$bin/ovs-ofctl" add-flow br0 actions=drop
bond_heard() { # PORT: the tags of what its collector heard of at the uplink
    grep '"dport":7010' "$dir/$1.json" | grep '"in_if":15' | grep -o '"vlan":[0-9]*' | sort -u | tr -dc '0-9\n' | xargs
}
bond_sends() {
    in_peer_send vb 7010 10 && in_peer_send vb 7010 20 && in_peer_send vb 7010 40 &&
        [ "$(bond_heard 9036)" = "10 20 40" ]
}
check all-from-a-bond-to-the-bridges until_true 20 bond_sends
from_bond() { [ "$(bond_heard 9032)" = 10 ] && [ "$(bond_heard 9034)" = 20 ]; }
check networks-from-a-bond until_true 5 from_bond

vsctl -- clear bridge br0 ipfix -- --all destroy Flow_Sample_Collector_Set
stopped() { appctl flow-export/show | grep -q 'no bridge exports'; }
check stops until_true 5 stopped
# One packet in three, as the options say.  A collector that cannot be keeps no other from hearing.
sampled() { # VERSION
    vsctl -- --id=@i create IPFIX 'targets=["127.0.0.1:9036","tls:127.0.0.1:9012","nonsense"]' sampling=3 \
        other_config:weft-idle-timeout=1 other_config:weft-version="$1" -- set bridge br0 ipfix=@i >"$dir/rows"
}
sampled ipfix
says_sampled() { # PROTOCOL
    traffic send va 7011 && grep '"dport":7011' "$dir/9036.json" | grep "\"protocol\":$1," | grep -q '"sampling":3}'
}
check sampling-is-told until_true 20 says_sampled 10
refused() { appctl flow-export/show | grep -q "  $1: refused: "; }
check wrong-collector-is-said refused nonsense
check no-certificate-is-said refused tls:127.0.0.1:9012
vsctl set-ssl "$WEFT_PKI/switch.key" "$WEFT_PKI/switch.crt" "$WEFT_PKI/ca.crt"
tries_tls() { appctl flow-export/show | grep -q '  tls:127.0.0.1:9012: [ac]'; }
check certificates-of-the-switch until_true 10 tries_tls
# Certificates that come, or are others, later: of a row that stays as it is.
late() { # NAME: the key last, so that there are two that do not fit
    cp "$WEFT_PKI/ca.crt" "$dir/late.ca" && cp "$WEFT_PKI/$1.crt" "$dir/late.crt.new" &&
        cp "$WEFT_PKI/$1.key" "$dir/late.key.new" && mv "$dir/late.crt.new" "$dir/late.crt" &&
        mv "$dir/late.key.new" "$dir/late.key"
}
again() { vsctl set bridge br0 "external_ids:turn=$((turns++))"; } # nothing that it exports by
turns=0
vsctl -- --id=@i create IPFIX 'targets=["127.0.0.1:9036","tls:127.0.0.1:9012"]' other_config:weft-idle-timeout=1 \
    other_config:weft-private-key="$dir/late.key" other_config:weft-certificate="$dir/late.crt" \
    other_config:weft-ca-cert="$dir/late.ca" -- set bridge br0 ipfix=@i >"$dir/rows"
exported() { appctl flow-export/show | sed -n 's/^  records \([0-9]*\),.*/\1/p'; }
exports_some() { traffic send va 7012 && [ "$(exported)" -gt 0 ]; }
check refused-without-files until_true 5 refused tls:127.0.0.1:9012
check exports-to-the-other until_true 20 exports_some
had=$(exported)
late switch
tries_again() { again && tries_tls && not refused tls:127.0.0.1:9012; }
check tried-again-with-files until_true 10 tries_again
check with-its-numbers test "$(exported)" -ge "$had"
times_read() { grep -c 'certificates are read again' "$dir/ovs-vswitchd.log"; }
read_again() { again && [ "$(times_read)" -gt 0 ]; }
check not-read-again-as-they-are not read_again
late flowd
check read-again-as-they-changed until_true 10 read_again
check read-again-once test "$(times_read)" -eq 1
sampled v5
check sampling-is-told-by-v5 until_true 20 says_sampled 5
vsctl clear bridge br0 ipfix
check stops-again until_true 5 stopped
vsctl -- --id=@i create IPFIX 'targets=["tcp:127.0.0.1:9013"]' -- set bridge br0 ipfix=@i >"$dir/rows"
away() { appctl flow-export/show | grep -q 'tcp:127.0.0.1:9013: away.*refused'; }
check starts-again-without-its-collector until_true 5 away
vsctl del-br br0
check ends-with-its-bridge until_true 5 stopped
finish
