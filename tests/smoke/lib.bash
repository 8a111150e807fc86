# shellcheck shell=bash
# What smoke tests share.  A test sources it from the repository's root, with
# its own name in $suite:
#
#   cd "$(dirname "$0")/../.."
#   suite=policy
#   . tests/smoke/lib.bash
#   need_root "a bridge's local port"
#   ...
#   check flows-come-back until_true 10 same_flows
#   finish
#
# It then has $bin (the programs), $dir (a directory of its own), and
#
#   check NAME COMMAND...        prints "ok SUITE/NAME" if the command succeeds,
#                                else "not ok SUITE/NAME: " and its last words
#   refuse NAME COMMAND...       the same if it fails
#   ok NAME, not_ok NAME WHY     what they print
#   give_up WHY                  the whole test makes no sense any more
#   until_true SECONDS COMMAND...
#   pause [SECONDS]              without a process
#   started PID...               processes to be ended, the last one first
#   at_end COMMAND               evaluated before that; the last one first
#   finish                       ends the test
#
# Whatever happens, processes and $dir are gone at the end (KEEP=1 keeps $dir).
bin=${WEFT_BIN:-$PWD/build/bin}
dir=$(mktemp -d)
failed=0
smoke_ends=()

ok() { echo "ok $suite/$1"; }
not_ok() {
    echo "not ok $suite/$1: ${2//$'\n'/ | }"
    failed=1
}
# Commands see our variables, so theirs must not be called like ours.
check() {
    local smoke_case=$1
    shift
    if "$@" >"$dir/said" 2>&1; then
        ok "$smoke_case"
    else
        [ -s "$dir/said" ] || echo "failed: $*" >"$dir/said"
        not_ok "$smoke_case" "$(tail -n 3 "$dir/said")"
    fi
}
not() { ! "$@"; }
refuse() { check "$1" not "${@:2}"; }
give_up() {
    echo "not ok $suite: ${*//$'\n'/ | }"
    exit 1
}
need_root() { # WHAT FOR
    [ "$(id -u)" -eq 0 ] && return
    echo "skip $suite: needs root for $1"
    exit 0
}

pause() { read -rt "${1:-0.05}" <> <(:) || true; }
# Quiet until the last try.
until_true() {
    local end=$((SECONDS + $1))
    shift
    while ((SECONDS < end)); do
        "$@" >/dev/null 2>&1 && return
        pause
    done
    "$@"
}

at_end() { smoke_ends+=("$1"); }
started() {
    local pid
    for pid; do at_end "smoke_kill $pid"; done
}
smoke_alive() { [ -d "/proc/$1" ] && [[ $(<"/proc/$1/stat") != *") Z "* ]]; } 2>/dev/null
smoke_kill() {
    kill "$1" 2>/dev/null
    until_true 5 not smoke_alive "$1" || kill -KILL "$1" 2>/dev/null
}
smoke_exit() {
    local status=$? i
    for ((i = ${#smoke_ends[@]} - 1; i >= 0; i--)); do eval "${smoke_ends[i]}"; done
    [ -n "${KEEP:-}" ] || rm -rf "$dir"
    exit "$status"
} >/dev/null 2>&1
trap smoke_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

finish() { exit "$failed"; }
