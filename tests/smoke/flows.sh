#!/bin/bash
# Known traffic through a switch that exports its flows: collectors count, per
# 5-tuple, exactly the packets and L3 bytes that a capture of it has.
#
#   va =swva- br0 -swvb= vb            tcpreplay sends from va
#              weft-vswitchd > v5 and IPFIX, then v9 > nfcapd, nfacctd, weft-flowd, tshark
#
# All of it in a network namespace of its own.
set -u
cd "$(dirname "$0")/../.."
if [ "$(id -u)" -eq 0 ] && [ -z "${FLOWS_TEST_INSIDE:-}" ]; then
    FLOWS_TEST_INSIDE=1 exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" "$@"
fi
suite=flows
. tests/smoke/lib.bash
need_root "a network namespace"
for tool in nfcapd nfdump nfacctd tshark tcpreplay; do
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
"$bin/ovsdb-tool" create "$dir/conf.db" "$schema"
"$bin/ovsdb-server" "$dir/conf.db" --remote="punix:$dir/db.sock" --pidfile --detach --no-chdir \
    --log-file -vconsole:off || give_up "no database"
vsctl --no-wait init
vsctl --no-wait set Open_vSwitch . other_config:dpdk-init=true \
    other_config:dpdk-extra=--no-pci other_config:weft-small-mbufs=4096 other_config:weft-large-mbufs=512 other_config:weft-plug=false
"$bin/weft-vswitchd" --pidfile --detach --no-chdir --log-file -vconsole:off 2>"$dir/stderr" ||
    give_up "weft-vswitchd does not start: $(tail -n 1 "$dir/stderr")"
vsctl add-br br0 -- set bridge br0 datapath_type=weft \
    -- add-port br0 swva -- set interface swva ofport_request=11 \
    external_ids:xs-vif-uuid=vif-a external_ids:xs-vm-uuid=vm-a external_ids:weft-vif-key=701 \
    -- add-port br0 swvb -- set interface swvb ofport_request=12 external_ids:weft-vif-key=702
cat >"$dir/of" <<'END'
priority=20,tcp,tp_dst=9999,actions=sample(probability=65535,collector_set_id=1,obs_domain_id=2,obs_point_id=4242)
priority=10,in_port=11,actions=output:12
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
until_true 10 captures || give_up "tshark does not capture: $(tail -n 1 "$dir/tshark.log")"

# --- flows ----------------------------------------------------------------------------------
records() { # NAME-OF-VERSION
    appctl flow-export/show | awk -v v="$1" '$0 ~ v {f = 1} f && /records/ {gsub(",", ""); print $2; exit}'
}
# All that was sent has been told once at least, and no more comes.
told() { # VERSION ATLEAST
    local n
    n=$(records "$1")
    [ "${n:-0}" -ge "$2" ] || return 1
    [ "$n" = "$last_told" ] || {
        last_told=$n
        sleep 0.7
        return 1
    }
}
last_told=
# Slowly: a switch that is preempted for long has a socket buffer of some 250 frames.
replay() { tcpreplay -q --pps=400 -i va "$dir/t.pcap" >"$dir/replay" 2>&1; }
traffic write "$dir/t.pcap"

vsctl -- --id=@n create NetFlow 'targets=["127.0.0.1:9000","127.0.0.1:9001","127.0.0.1:9002"]' engine_id=7 \
    external_ids:weft-idle-timeout=1 \
    -- --id=@i create IPFIX 'targets=["127.0.0.1:9010","127.0.0.1:9011","tls:127.0.0.1:9012"]' obs_domain_id=77 \
    other_config:weft-private-key="$WEFT_PKI/switch.key" \
    other_config:weft-certificate="$WEFT_PKI/switch.crt" \
    other_config:weft-ca-cert="$WEFT_PKI/ca.crt" \
    -- set bridge br0 netflow=@n ipfix=@i >"$dir/rows"
shows() { appctl flow-export/show | grep -q 'domain 77'; }
check starts until_true 10 shows
check replays replay
check told-v5 until_true 15 told 'NetFlow v5' 348
last_told=
check told-ipfix until_true 15 told IPFIX 356
vsctl -- set netflow . 'targets=["127.0.0.1:9020","127.0.0.1:9021","127.0.0.1:9022"]' external_ids:weft-version=v9
shows_v9() { appctl flow-export/show | grep -q 'NetFlow v9'; }
check turns-to-v9 until_true 10 shows_v9
check replays-again replay
last_told=
check told-v9 until_true 15 told 'NetFlow v9' 356
wide() { # OVS's own NetFlow would have made a flow of each 5-tuple
    [ "$(appctl dpctl/dump-flows | wc -l)" -lt 30 ]
}
check flows-stay-wide wide

# --- what collectors say -----------------------------------------------------------------------
nfdump_counts() { # VERSION
    nfdump -q -N -6 -R "$dir/$1" -o 'fmt:%pr,%sa,%sp,%da,%dp,%pkt,%byt' \
        >"$dir/$1.nfdump" || return 1
    traffic check nfdump "$2" "$dir/$1.nfdump" "$3"
}
weft_counts() { traffic check "weft$1" "$2" "$dir/weft.json" "$3"; } # PROTOCOL
nfacctd_counts() { traffic check nfacctd "$2" "$dir/$1.csv" "$3"; }
# IPFIX hears of both replays.
/usr/bin/python3 - "$dir/t.pcap" "$dir/twice.pcap" <<'END'
import sys
data = open(sys.argv[1], "rb").read()
open(sys.argv[2], "wb").write(data + data[24:])
END
twice() { [ "$(records IPFIX)" -ge 712 ]; }
until_true 10 twice
for v in v5 ipfix v9 weft; do smoke_kill "${collector_pid[$v]}"; done
check v5-nfcapd nfdump_counts v5 v4 "$dir/t.pcap"
check v5-nfacctd until_true 5 nfacctd_counts v5 v4 "$dir/t.pcap"
check ipfix-nfcapd nfdump_counts ipfix all "$dir/twice.pcap"
check ipfix-nfacctd until_true 5 nfacctd_counts ipfix all "$dir/twice.pcap"
check v9-nfcapd nfdump_counts v9 all "$dir/t.pcap"
check v9-nfacctd until_true 5 nfacctd_counts v9 all "$dir/t.pcap"
check v5-weft-flowd weft_counts 5 v4 "$dir/t.pcap"
check ipfix-weft-flowd weft_counts 10 all "$dir/twice.pcap"
check v9-weft-flowd weft_counts 9 all "$dir/t.pcap"
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

vsctl -- clear bridge br0 netflow -- clear bridge br0 ipfix
stopped() { appctl flow-export/show | grep -q 'no bridge exports'; }
check stops until_true 5 stopped
vsctl -- --id=@i create IPFIX 'targets=["tcp:127.0.0.1:9013"]' -- set bridge br0 ipfix=@i >"$dir/rows"
away() { appctl flow-export/show | grep -q 'tcp:127.0.0.1:9013: away.*refused'; }
check starts-again-without-its-collector until_true 5 away
vsctl del-br br0
check ends-with-its-bridge until_true 5 stopped
finish
