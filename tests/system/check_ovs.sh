#!/bin/bash
# Runs Open vSwitch's own tests against weft-vswitchd and compares with what
# the stock ovs-vswitchd does on the same machine (ovs-*.expected): nothing may
# fail that passes there.  ovs-*.differs lists tests of things that only
# Open vSwitch's own datapath has, each with its reason: they are not run.
#
#   tests/system/check_ovs.sh [userspace|unit]
#
#   userspace        system-userspace-testsuite: real packets, in namespaces
#   unit             of the unit tests those that exercise a userspace datapath
#                    (dpif-netdev, pmd, ofproto-dpif), on dummy devices
#
# Variables:
#   TESTS="1-20 77"  only these; default: all
#   SHARDS=N         run so many parts at a time, each in network and mount
#                    namespaces of its own; default: two a core, for they
#                    mostly wait
#   DATAPATH=netdev  on Open vSwitch's datapath; default: weft, by means of a
#                    copy of the suite with the datapath's name replaced
#   SWITCH=PROGRAM   another ovs-vswitchd
#   RECORD=1         write the results as the new ovs-*.expected (with
#                    DATAPATH=netdev SWITCH=build/ovs/build/vswitchd/ovs-vswitchd)
#
# Ends on "N passed, N failed, N skipped".  A test that fails with the stock
# switch, too, counts as skipped.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
src=$top/build/ovs/src
build=$top/build/ovs/build
kind=${1:-userspace}
expected=$here/ovs-$kind.expected
differs=$here/ovs-$kind.differs
shards=${SHARDS:-$((2 * $(nproc)))}
datapath=${DATAPATH:-weft}
switch=$(readlink -f "${SWITCH:-$top/build/bin/weft-vswitchd}")

[ "$(id -u)" -eq 0 ] || {
    echo "check-ovs makes network namespaces: run it as root" >&2
    exit 2
}
[ -x "$switch" ] || {
    echo "$switch is not there: run 'make build' first" >&2
    exit 2
}
"$top/lib/deps.sh" "$here/packages-ovs.txt"

work=$(mktemp -d)
pids=()
finish() {
    # The shards' namespaces, and all that runs in them, end with their init.
    for pid in "${pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    if [ -n "${KEEP:-}" ]; then echo "logs: $work"; else rm -rf "$work"; fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The switch goes by the name that the tests start.
mkdir "$work/bin"
ln -s "$switch" "$work/bin/ovs-vswitchd"
path=$work/bin:$build/utilities:$build/vswitchd:$build/ovsdb:$build/tests

case $kind in
userspace)
    suite=$src/tests/system-userspace-testsuite
    adapt=(
        -e "s/datapath_type=\"netdev\"/datapath_type=\"$datapath\"/g"
        -e "s/datapath_type=netdev/datapath_type=$datapath/g"
        -e "s/netdev@ovs-netdev/$datapath@ovs-$datapath/g"
        -e "s/ovs-netdev/ovs-$datapath/g"
        -e "s/datapaths:\"netdev\"/datapaths:\"$datapath\"/g"
        -e "s/echo \"netdev\"/echo \"$datapath\"/g"
    )
    ;;
unit)
    suite=$src/tests/testsuite
    # The dummy datapath has our datapath's name in front; what logs a flow or
    # counts a drop has another; a dump has no sections for threads, since flows
    # are not theirs; translation is logged by handlers.
    adapt=(
        -e "s/datapath\([-_]\)type=dummy/datapath\1type=$datapath-dummy/g"
        -e "s/\bdummy@/$datapath-dummy@/g"
        -e "s/ovs-dummy/ovs-$datapath-dummy/g"
        -e "s/dpif_netdev:dbg/dp_flow:dbg/g"
        -e "s/datapath_drop_meter/weft_drop_meter/g"
        -e "s/dpif_netdev|DBG/dp_flow|DBG/g"
        -e "s/|ofproto_dpif_xlate|WARN|/|ofproto_dpif_xlate.*|WARN|/g"
        -e '/"flow-dump from the main thread:$/{N;s/"flow-dump from the main thread:\n/"/}'
    )
    ;;
*)
    echo "usage: check_ovs.sh [userspace|unit]" >&2
    exit 2
    ;;
esac
if [ "$datapath" != netdev ]; then
    sed "${adapt[@]}" "$suite" >"$work/${suite##*/}"
    suite=$work/${suite##*/}
fi

# prepare_shard DIR: a folder from which the generated script can run.
prepare_shard() {
    mkdir -p "$1"
    : >"$1/out" # looked into from the start
    cp "$build/tests/atlocal" "$1"
    sed -e "s|^at_srcdir=.*|at_srcdir='$src/tests'|" \
        -e "s|^at_top_srcdir=.*|at_top_srcdir='$src'|" \
        -e "s|^at_top_build_prefix=.*|at_top_build_prefix='$build/'|" \
        -e "s|^abs_builddir=.*|abs_builddir='$1'|" "$build/tests/atconfig" >"$1/atconfig"
}

# Runs one shard's tests.  The process is the init of a PID namespace, so that
# nothing survives it.
run_shard() { # DIR TEST...
    local dir=$1
    shift
    # shellcheck disable=SC2016
    exec unshare --net --mount --pid --fork --kill-child --mount-proc bash -c '
        mkdir -p /run/netns
        mount -t tmpfs none /run/netns
        mount -t sysfs none /sys
        mount -t tmpfs none /var/run/dpdk 2>/dev/null || true
        ip link set lo up
        dir=$1 suite=$2 path=$3
        shift 3
        cd "$dir" # what tests leave behind, they leave there
        exec /bin/sh "$suite" -C "$dir" "AUTOTEST_PATH=$path" "$@"
    ' shard "$dir" "$suite" "$path" "$@" \
        >"$dir/out" 2>&1 </dev/null
}

# All test numbers, or those of $TESTS.
list_tests() {
    local part all
    all=$(sed -n 's/^at_help_all="//; /^[0-9]*;[-a-z0-9]*\.at:/p' "$suite" |
        if [ "$kind" = unit ]; then grep -E ';(dpif-netdev|pmd|ofproto-dpif)\.at:'; else cat; fi |
        cut -d ';' -f 1)
    for part in ${TESTS:-$all}; do
        seq "${part%-*}" "${part#*-}"
    done | if [ "$datapath" != netdev ] && [ -z "${TESTS:-}" ] && [ -f "$differs" ]; then
        grep -vxFf <(sed -n 's/^\([0-9]*\) .*/\1/p' "$differs")
    else
        cat
    fi
}

# "NUMBER ok|fail|skip NAME" from a run's output.
results() {
    sed -nE -e 's/^ *([0-9]+): (.*[^ ]) +ok$/\1 ok \2/p' \
        -e 's/^ *([0-9]+): (.*[^ ]) +FAILED \(.*$/\1 fail \2/p' \
        -e 's/^ *([0-9]+): (.*[^ ]) +skipped \(.*$/\1 skip \2/p' "$@" | sort -n
}

mapfile -t tests < <(list_tests)
for ((s = 0; s < shards; s++)); do
    mine=()
    for ((i = s; i < ${#tests[@]}; i += shards)); do
        mine+=("${tests[i]}")
    done
    [ ${#mine[@]} -gt 0 ] || continue
    prepare_shard "$work/$s"
    run_shard "$work/$s" "${mine[@]}" &
    pids+=($!)
done

# Progress, while the shards run.
for pid in "${pids[@]}"; do
    while kill -0 "$pid" 2>/dev/null; do
        done_=$(results "$work"/*/out | wc -l)
        [ -t 1 ] && printf '\r  OVS tests: %d of %d' "$done_" "${#tests[@]}"
        read -rt 2 <> <(:) || true
    done
    wait "$pid" || true
done
[ -t 1 ] && echo
results "$work"/*/out >"$work/results"

if [ -n "${RECORD:-}" ]; then
    cp "$work/results" "$expected"
fi

# A test that fails where the stock switch passes gets two more chances on a
# quieter machine: these tests have timeouts of their own, or none where packets
# go through sockets from port to port.
regressions() {
    awk 'FILENAME == ARGV[1] { want[$1] = $2; next }
         $2 == "fail" && want[$1] == "ok" { print $1 }' "$expected" "$1"
}
for try in second third; do
    mapfile -t again < <(regressions "$work/results")
    [ ${#again[@]} -gt 0 ] || break
    echo "  $try try: ${again[*]}"
    prepare_shard "$work/$try"
    (run_shard "$work/$try" "${again[@]}") || true
    results "$work/$try/out" >"$work/again"
    awk 'FILENAME == ARGV[1] { again[$1] = $0; next }
         $1 in again { print again[$1]; next } { print }' "$work/again" "$work/results" \
        >"$work/merged"
    mv "$work/merged" "$work/results"
done

missing=$((${#tests[@]} - $(wc -l <"$work/results")))
awk -v missing="$missing" '
    FILENAME == ARGV[1] { want[$1] = $2; next }
    $2 == "ok" { passed++ }
    $2 == "skip" || ($2 == "fail" && want[$1] != "ok") { skipped++ }
    $2 == "fail" && want[$1] == "ok" { failed++; print "not ok " $0 }
    END {
        if (missing) print "not ok: " missing " tests gave no result"
        printf "%d passed, %d failed, %d skipped\n", passed, failed + missing, skipped
        exit failed + missing > 0
    }' "$expected" "$work/results"
