#!/bin/bash
# weft-vswitchd --spare: who lives, who dies, who takes over; and three kills
# under traffic with stateful rules (the benchmark's row "restart", shortened).
#
#   supervisor ─┬─ active   the switch, named by the pid file
#               └─ spare
set -u
cd "$(dirname "$0")/../.."
suite=spare
. tests/smoke/lib.bash
need_root "network namespaces"

export OVS_RUNDIR=$dir OVS_LOGDIR=$dir OVS_DBDIR=$dir OVS_SYSCONFDIR=$dir
pid_of() { sed -n "s/^$1 \([0-9]*\) ready/\1/p" "$dir/weft/spare" 2>/dev/null; }
parent_of() { sed 's/.*) . \([0-9]*\).*/\1/' "/proc/$1/stat"; }
both_ready() { [ -n "$(pid_of active)" ] && [ -n "$(pid_of spare)" ]; }
gone() { # PID...
    for p in "$@"; do
        [ ! -d "/proc/$p" ] || [[ $(<"/proc/$p/stat") == *") Z "* ]] || return 1
    done
}
all=()
start() {
    "$bin/weft-vswitchd" "unix:$dir/db.sock" --spare --detach --pidfile --log-file \
        -vconsole:off -vsyslog:off >"$dir/out" 2>&1 || return 1
    [ "$(cat "$dir/ovs-vswitchd.pid")" = "$(pid_of active)" ] || return 1
    until_true 20 both_ready || return 1
    all=("$(pid_of active)" "$(pid_of spare)")
    all+=("$(parent_of "${all[0]}")")
}
end_supervisor() {
    local pid
    pid=$(sed -n 's/^active \([0-9]*\) .*/\1/p' "$dir/weft/spare" 2>/dev/null)
    [ -z "$pid" ] || kill -KILL "$(parent_of "$pid")" 2>/dev/null
}

"$bin/ovsdb-tool" create "$dir/conf.db" build/share/vswitch.ovsschema
"$bin/ovsdb-server" "$dir/conf.db" "--remote=punix:$dir/db.sock" --unixctl="$dir/db.ctl" \
    -vconsole:off -vsyslog:off &
started $!
at_end end_supervisor
"$bin/ovs-vsctl" --retry --timeout=10 "--db=unix:$dir/db.sock" --no-wait init

check start start
took_over() { [ "$(pid_of active)" = "${all[1]}" ] && both_ready; }
kill -KILL "${all[0]}"
check takes-over until_true 20 took_over
check pidfile [ "$(cat "$dir/ovs-vswitchd.pid")" = "${all[1]}" ]
check answers "$bin/ovs-appctl" -T 10 -t ovs-vswitchd version
active=$(pid_of active)
old=$(pid_of spare)
kill -KILL "$old"
another() { both_ready && [ "$(pid_of spare)" != "$old" ] && [ "$(pid_of active)" = "$active" ]; }
check another-spare until_true 20 another
all[0]=$(pid_of active)
all[1]=$(pid_of spare)
"$bin/ovs-appctl" -T 10 -t ovs-vswitchd exit
check exit until_true 10 gone "${all[@]}"
check start-again start
kill -TERM "${all[2]}"
check term until_true 10 gone "${all[@]}"
check start-a-third-time start
kill -KILL "${all[2]}"
check supervisor until_true 10 gone "${all[@]}"
rm -f "$dir/weft/spare"

if ! RESTART_KILLS=3 /usr/bin/python3 -B - >"$dir/row" 2>&1 <<'END'; then
import contextlib
import sys

sys.path.insert(0, "perf")
sys.argv = ["restart", "--rows", "restart"]
import bench
from rows import restart

with contextlib.ExitStack() as stack:
    b = bench.Bench(bench.parse_args(), bench.take_programs(stack))
    for figure in restart.run(b):
        print(f"# {figure.title}: {figure.value:.1f} {figure.unit}")
END
    not_ok traffic "$(tail -n 1 "$dir/row")"
else
    ok traffic
    grep '^#' "$dir/row"
fi
finish
