#!/bin/bash
# weft-vswitchd --spare: who lives, who dies, who takes over; and three kills
# under traffic with stateful rules (the benchmark's row "restart", shortened).
#
#   supervisor ─┬─ active   the switch, named by the pid file
#               └─ spare
set -u
cd "$(dirname "$0")/../.."
bin=$PWD/build/bin
dir=$(mktemp -d)
failed=0
ovsdb=

if [ "$(id -u)" -ne 0 ]; then
    echo "skip spare: needs root for network namespaces"
    exit 0
fi

check() { # NAME WHY COMMAND...
    local what=$1 why=$2
    shift 2
    if "$@" >"$dir/said" 2>&1; then
        echo "ok spare/$what"
    else
        echo "not ok spare/$what: $why"
        failed=1
    fi
}
export OVS_RUNDIR=$dir OVS_LOGDIR=$dir OVS_DBDIR=$dir OVS_SYSCONFDIR=$dir
pid_of() { sed -n "s/^$1 \([0-9]*\) ready/\1/p" "$dir/weft/spare" 2>/dev/null; }
parent_of() { sed 's/.*) . \([0-9]*\).*/\1/' "/proc/$1/stat"; }
within() { # SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        read -rt 0.05 <> <(:)
    done
    return 0
}
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
    within 20 both_ready || return 1
    all=("$(pid_of active)" "$(pid_of spare)")
    all+=("$(parent_of "${all[0]}")")
}
cleanup() {
    local pid
    pid=$(sed -n 's/^active \([0-9]*\) .*/\1/p' "$dir/weft/spare" 2>/dev/null)
    [ -z "$pid" ] || kill -KILL "$(parent_of "$pid")" 2>/dev/null
    [ -z "$ovsdb" ] || kill "$ovsdb"
    rm -rf "$dir"
}
trap cleanup EXIT

"$bin/ovsdb-tool" create "$dir/conf.db" build/share/vswitch.ovsschema
"$bin/ovsdb-server" "$dir/conf.db" "--remote=punix:$dir/db.sock" --unixctl="$dir/db.ctl" \
    -vconsole:off -vsyslog:off &
ovsdb=$!
"$bin/ovs-vsctl" --retry --timeout=10 "--db=unix:$dir/db.sock" --no-wait init

check start "it did not start: $(tail -n 2 "$dir/out" 2>/dev/null)" start
took_over() { [ "$(pid_of active)" = "${all[1]}" ] && both_ready; }
kill -KILL "${all[0]}"
check takes-over "the spare is not the switch" within 20 took_over
check pidfile "the pid file names another" [ "$(cat "$dir/ovs-vswitchd.pid")" = "${all[1]}" ]
check answers "the switch does not answer" \
    "$bin/ovs-appctl" -T 10 -t ovs-vswitchd version
active=$(pid_of active)
old=$(pid_of spare)
kill -KILL "$old"
another() { both_ready && [ "$(pid_of spare)" != "$old" ] && [ "$(pid_of active)" = "$active" ]; }
check another-spare "no other spare came" within 20 another
all[0]=$(pid_of active)
all[1]=$(pid_of spare)
"$bin/ovs-appctl" -T 10 -t ovs-vswitchd exit
check exit "something lives after an exit" within 10 gone "${all[@]}"
check start-again "it did not start again" start
kill -TERM "${all[2]}"
check term "something lives after a SIGTERM" within 10 gone "${all[@]}"
check start-a-third-time "it did not start again" start
kill -KILL "${all[2]}"
check supervisor "something lives without its supervisor" within 10 gone "${all[@]}"
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
    echo "not ok spare/traffic: $(tail -n 1 "$dir/row")"
    failed=1
else
    echo "ok spare/traffic"
    grep '^#' "$dir/row"
fi
exit $failed
