#!/bin/bash
# A cell with real connections moves to and fro: what it serves, what it echoes and
# what it opened itself goes on, and no byte differs.
#
#   cell (domain 50 or 51) -vif5x.0- xenbr0 (local port 10.0.0.1: cell_probe.py)
#
# Both processes are on one host, so the move is a vif's to another port.  Everything
# lives in private namespaces and is gone with them.
set -u
cd "$(dirname "$0")/../.." || exit 1
suite=cell
if [ "$(id -u)" -eq 0 ] && [ -z "${CELL_TEST_INSIDE:-}" ]; then
    CELL_TEST_INSIDE=1 exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" "$@"
fi
. tests/smoke/lib.bash
need_root "network namespaces"
share=$PWD/build/share
mkdir "$dir/capture"
moves=${CELL_MOVES:-4}
export OVS_RUNDIR=$dir OVS_LOGDIR=$dir OVS_DBDIR=$dir

ip link set lo up
"$bin/weft-localxen" --dir "$dir/xen" >"$dir/xen.log" 2>&1 &
until_true 10 test -S "$dir/xen/xenstored" || give_up "weft-localxen does not start"
"$bin/ovsdb-tool" create "$dir/conf.db" "$share/vswitch.ovsschema"
"$bin/ovsdb-server" "$dir/conf.db" --remote="punix:$dir/db.sock" --pidfile --detach --no-chdir \
    --log-file -vconsole:off 2>>"$dir/stderr"
vsctl() { "$bin/ovs-vsctl" --timeout=20 "$@"; }
vsctl --no-wait init
vsctl --no-wait set Open_vSwitch . other_config:dpdk-init=true other_config:dpdk-extra=--no-pci \
    other_config:weft-small-mbufs=8192 other_config:weft-large-mbufs=512 \
    "other_config:weft-hv=local:$dir/xen"
"$bin/weft-vswitchd" --pidfile --detach --no-chdir --log-file -vconsole:off 2>>"$dir/stderr" ||
    give_up "weft-vswitchd does not start: $(tail -n 1 "$dir/stderr")"
vsctl add-br xenbr0 -- set bridge xenbr0 datapath_type=weft
ip addr add 10.0.0.1/24 dev xenbr0
ip link set xenbr0 up

mac=00:16:3e:00:50:01
start_cell() { # DOMID OPTION...
    "$bin/weft-cell" --image "$share/cell.img" --memory 64M --dir "$dir/xen" --domid "$1" \
        --control "$dir/$1.sock" --vif "mac=$mac,ip=10.0.0.2/24,bridge=xenbr0" \
        --run-log "$dir/run.log" "${@:2}" >>"$dir/$1.log" 2>&1 &
    disown
    until_true 10 test -S "$dir/$1.sock"
}
probe() { python3 tests/smoke/cell_probe.py "$@"; }
result() { grep '"result"' "$1" | tail -n 1; }
# Moves the guest from domain $1 to domain $2; further options for both ends follow.
epoch=1
move() {
    local from=$1 to=$2 port common
    shift 2
    common=(--driver cell --vm "$vm" --migration "$(cat /proc/sys/kernel/random/uuid)" --from "h$from"
        --to "h$to" --epoch "$epoch" --claim-file "$dir/claim" --plain "$@")
    start_cell "$to" --incoming || return 1
    rm -f "$dir/receive" # the last move's
    mkdir -p "$dir/h$from" "$dir/h$to" # one for each host
    "$bin/weft-migrate" receive "${common[@]}" --listen 127.0.0.1:0 --journal "$dir/h$to/$epoch" \
        --option "control=$dir/$to.sock" >"$dir/receive" 2>"$dir/receive.err" </dev/null &
    local receiver=$!
    until_true 10 grep -q listening "$dir/receive" || { cat "$dir/receive.err"; return 1; }
    port=$(sed -n 's/.*"address": *"\([^"]*\)".*/\1/p' "$dir/receive" | head -n 1)
    "$bin/weft-migrate" send "${common[@]}" --connect "$port" --journal "$dir/h$from/$epoch" \
        --option "control=$dir/$from.sock" >"$dir/send" 2>"$dir/send.err" </dev/null ||
        { result "$dir/send"; result "$dir/receive"; tail -n 2 "$dir/send.err"; return 1; }
    wait "$receiver" || { result "$dir/receive"; tail -n 2 "$dir/receive.err"; return 1; }
    epoch=$((epoch + 1))
}
move_to_and_fro() {
    local i more=()
    for ((i = 0; i < moves; i++)); do
        ((i == moves - 1)) && more=(--capture "$dir/capture")
        move $((50 + i % 2)) $((51 - i % 2)) "${more[@]}" || return 1
        probe alive "$dir/traffic" || return 1
    done
}
vm=$(cat /proc/sys/kernel/random/uuid)
"$bin/weft-migrate" claim "$dir/claim" "$vm" h50 1 >/dev/null || give_up "no claim file"

start_cell 50 --cmdline "rate=20 set=10 fill=10"
check serves-http until_true 10 probe get 10000
check every-byte-is-right probe get 20000000 77
check echoes-tcp-and-udp probe echo
probe traffic "$dir/traffic" >"$dir/traffic.log" 2>&1 &
started $!
check fifty-connections-each-way until_true 20 probe busy "$dir/traffic"
check moves-to-and-fro move_to_and_fro
check another-reader-agrees env PYTHONDONTWRITEBYTECODE=1 tests/migrate/stream_read.py "$dir/capture"
check no-connection-broke probe end "$dir/traffic"
check nothing-of-the-guest-is-stale probe guest "$moves"
check one-runs-at-a-time probe runs "$dir/run.log" "$moves"
check shuts-down probe shutdown "$dir/50.sock" "$dir/51.sock"
finish
