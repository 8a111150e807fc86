#!/bin/bash
# shellcheck disable=SC1091,SC2034,SC2154 # what lab.sh and run.sh share
# Weft under the real hypervisor: two Xen hosts in QEMU (software emulation),
# weft-vswitchd in their dom0s, unmodified Linux guests.
#
#   run.sh [CASE...]          boots the hosts, runs all cases or these, stops
#   run.sh -CASE...           the same, all but these
#   run.sh up                 boots the hosts and leaves them running
#   run.sh case [CASE...]     runs cases on hosts that are up
#   run.sh exec HOST SCRIPT   runs SCRIPT in the dom0 of h1 or h2 (dom0/rig.sh
#                             has what it can call)
#   run.sh push               replaces the programs on running hosts by those
#                             of build/bin, restarts the switches
#   run.sh down
#   run.sh list
#
# LAB=NAME keeps several pairs of hosts apart (build/xen/lab-NAME).
# HOST_MEMORY and DOM0_MEMORY are in MiB.
#
# The hosts' time is counted in instructions.  When they are busy, or this
# machine is, it is slower than ours, PATIENCE times (5) at most; so timeouts
# in dom0 and what is measured there depend little on this machine.
#
# Cases.  A file cases/NN-TOPIC.sh holds functions case_NAME, run in the order
# of the files and in a process of their own with "set -e", for at most
# $case_seconds of the hosts' time (or N: "# case_NAME: N s" in the file).
# A case fails if its function does; the last line it wrote is the reason.
# "skip REASON" skips it, "note TEXT" (in dom0, too) adds to its line.  It calls:
#
#   h1 'SCRIPT' [SECONDS]     the script in h1's dom0, for at most 60 s of its
#   h2 'SCRIPT' [SECONDS]     time; output and status are the script's
#   both 'SCRIPT' [SECONDS]   on both at the same time
#
# A case that needs both says so: "# case_NAME: two hosts" or "# case_NAME: N s,
# two hosts".  All others come first, two at a time with the hosts unlinked,
# and what they call h1 may be either host ($self is its address in dom0).
#
# After each case, on both hosts: processes started by bg and remaining guests
# are ended, and then no domain, grant (a domain with a page mapped cannot go),
# event channel, xenstore node, switch port or journal of a guest may be left,
# and the logs of dom0's kernel, Xen and the switch must be clean
# (end_of_case in dom0/rig.sh).
#
# A case that fails runs once more, because machines are shared; one in which the
# emulation left a guest spinning (lab.sh) is void, and runs again, three times at
# most.  Each prints
# "ok NAME (N s)", with "first run: why" behind it if it was the second one that
# passed, "not ok NAME: why" or "skip NAME: why"; the end is "N passed, N failed,
# N skipped".
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
images=$top/build/xen
case_seconds=120
voids_max=3
# shellcheck source=SCRIPTDIR/lab.sh
. "$here/lab.sh"

skip_all() {
    echo "skip xen: $*"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}

prepare() {
    local why
    [ "$(uname -m)" = x86_64 ] || skip_all "the hosts are x86-64, this machine is not"
    why=$("$top/lib/deps.sh" "$here/packages.txt" 2>&1) || skip_all "$(tail -n 1 <<<"$why")"
    command -v qemu-system-x86_64 >/dev/null || skip_all "qemu-system-x86_64 is not there"
    "$here/images.sh" || {
        [ $? -eq 3 ] && skip_all "Debian's packages of Xen cannot be had"
        exit 1
    }
}

# --- inside a case --------------------------------------------------------------

h1() { host_exec "${rig_host:-h1}" "${2:-60}" <<<"$1"; }
h2() { host_exec h2 "${2:-60}" <<<"$1"; }
both() {
    local pid status=0
    h1 "$@" &
    pid=$!
    h2 "$@" || status=$?
    wait "$pid" || status=$?
    return "$status"
}
skip() {
    echo "skip: $*"
    exit 0
}
note() { echo "note: $*"; }
die() {
    echo "$*"
    exit 1
}

# --- all cases ------------------------------------------------------------------

list_cases() { sed -n 's/^\(case_[a-z0-9_]*\)() .*/\1/p' "$here"/cases/*.sh | sed 's/^case_//'; }

needs_two() { grep -qE "^# case_$1: (.*, )?two hosts\$" "$here"/cases/*.sh; }
limit_of() { # CASE
    local n
    n=$(sed -nE "s/^# case_$1: ([0-9]+) s(,.*)?\$/\1/p" "$here"/cases/*.sh)
    echo "${n:-$case_seconds}"
}

seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }

# Where a host's PVH guest is in its kernel with interrupts disabled, if it is right now.
guest_at() { # HOST
    (cd "$lab" && { echo "info registers"; pause 0.2; } | socat -t 2 - "UNIX-CONNECT:$1.mon") |
        sed -n 's/.*RIP=\(ffffffff[0-9a-f]*\) RFL=\([0-9a-f]*\) .*CPL=0.*/\1 \2/p' |
        while read -r at flags; do (((0x$flags & 0x200) != 0)) || echo "$at"; done
}
# Ends a case once a guest stands at one instruction with interrupts disabled, as one does
# that the emulation has interrupted twice (lab.sh): half of the last $looks times.
watch_guests() { # PID FILE
    local host at most n looks=12
    declare -A seen
    while kill -0 "$1" 2>/dev/null; do
        pause 3
        for host in h1 h2; do
            at=$(guest_at $host 2>/dev/null) || true
            seen[$host]=$(tail -n $looks <<<"${seen[$host]:-}"$'\n'"${at:--}")
            most=$(grep -v '^-*$' <<<"${seen[$host]}" | sort | uniq -c | sort -rn | head -n 1) || true
            read -r n at <<<"${most:-0 -}"
            if ((n >= looks / 2)); then
                echo "$host: a guest stands at $at" >"$2"
                kill -TERM "$1" 2>/dev/null || true
                return
            fi
        done
    done
}

# try_case CASE HOST|both: prints why it failed, if it did.
try_case() {
    local log=$lab/log.$1 status=0 pid watch=''
    : >"$log.state"
    rm -f "$log.stands"
    rig_host=${2/both/h1} timeout --kill-after=5 $(($(limit_of "$1") * patience)) \
        "$0" inside "$1" >"$log" 2>&1 </dev/null &
    pid=$!
    [ "$2" != both ] || {
        watch_guests $pid "$log.stands" >/dev/null 2>&1 &
        watch=$!
    }
    wait $pid || status=$?
    [ -z "$watch" ] || wait $watch || true
    if [ "$status" -ne 0 ]; then
        echo "$(tail -n 2 "$log" | tr '\n' ' ')(status $status)"
        if [ "$2" = both ]; then both state 20; else host_exec "$2" 20 <<<state; fi >"$log.state" 2>&1 || true
    fi
    if [ "$2" = both ]; then both end_of_case; else host_exec "$2" 60 <<<end_of_case; fi \
        >"$log.end" 2>&1 || echo "left: $(tr '\n' ' ' <"$log.end")"
}

# run_case CASE HOST|both: prints its line and adds it to $lab/results.
run_case() {
    local log=$lab/log.$1 why first='' voids=0 started=$EPOCHREALTIME
    while why=$(try_case "$@"); do
        if [ -n "$why" ] && [ -e "$log.stands" ] && ((++voids <= voids_max)); then
            echo "    | void: $(cat "$log.stands")"
        elif [ -n "$why" ] && [ -z "$first" ]; then
            first="; first run: ${why//$'\n'/; }"
            tail -n 12 "$log" | cat - "$log.state" | sed 's/^/    | /'
        else
            break
        fi
    done
    ((voids == 0)) || first+="; $voids times void"
    if [ -n "$why" ]; then
        echo "not ok $1: ${why//$'\n'/; }"
        tail -n 12 "$log" | cat - "$log.state" | sed 's/^/    | /'
    elif grep -q '^skip: ' "$log"; then
        sed -n "s/^skip: /skip $1: /p" "$log"
    else
        echo "ok $1 ($(seconds_since "$started") s)$(sed -n 's/^note: /; /p' "$log" | tr -d '\n')$first"
    fi | tee -a "$lab/results"
}

# lane HOST: runs cases on it from the list that both lanes take from.
lane() {
    local c
    while c=$(next_case) && [ -n "$c" ]; do
        run_case "$c" "$1"
    done
}
next_case() {
    (
        flock 8
        head -n 1 "$lab/todo"
        sed -i 1d "$lab/todo"
    ) 8>"$lab/todo.lock"
}

links() { # up|down
    both "trunk $1" >"$lab/log.links" 2>&1 ||
        echo "not ok links: cannot go $1: $(tail -n 1 "$lab/log.links")" | tee -a "$lab/results"
}

run_cases() { # CASE...
    local c all=("$@") two=() lanes=()
    if [[ ${1:--} == -* ]]; then
        mapfile -t all < <(list_cases | grep -vxF -e "$(printf '%s\n' "${@#-}")" || true)
    fi
    : >"$lab/todo"
    : >"$lab/results"
    for c in "${all[@]}"; do
        if needs_two "$c"; then two+=("$c"); else echo "$c" >>"$lab/todo"; fi
    done
    if [ -s "$lab/todo" ]; then
        links down
        lane h1 & lanes+=($!)
        lane h2 & lanes+=($!)
        wait "${lanes[@]}"
        links up
    fi
    for c in ${two[@]+"${two[@]}"}; do
        run_case "$c" both
    done
    count
}
count() {
    local failed
    failed=$(grep -c '^not ok ' "$lab/results" || true)
    echo "$(grep -c '^ok ' "$lab/results" || true) passed, $failed failed," \
        "$(grep -c '^skip ' "$lab/results" || true) skipped"
    [ "$failed" -eq 0 ]
}

finish() {
    local pid
    for pid in $(jobs -p); do kill "$pid" 2>/dev/null || true; done
    lab_stop
    rm -rf "$lab"
}

check() {
    local started=$EPOCHREALTIME
    prepare
    lab=$(mktemp -d "$images/run.XXXXXX")
    export lab
    # Should this script be killed, the hosts are, too.
    host_guard=(setpriv --pdeathsig KILL)
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    # Not in a subshell, whose end would be the hosts'.
    lab_start >"$lab/boot" 2>&1 || {
        echo "not ok boot: $(tail -n 5 "$lab/boot")"
        echo "0 passed, 1 failed, 0 skipped"
        exit 1
    }
    echo "  two Xen hosts are up after $(seconds_since "$started") s"
    run_cases "$@"
}

push() {
    local host p
    "$here/images.sh"
    rm -rf "$lab/push"
    mkdir "$lab/push"
    (cd "$lab/push" && cpio --extract --quiet <"$images/weft.cpio")
    for host in h1 h2; do
        for p in $(cd "$lab/push" && echo usr/bin/weft* etc/xen/scripts/*); do
            host_put $host "$lab/push/$p" "/$p"
        done
        echo switch_restart | host_exec $host 60
    done
    rm -r "$lab/push"
}

lab=${lab:-$images/lab-${LAB:-default}}
command=${1:-}
case $command in
up)
    prepare
    mkdir -p "$lab"
    lab_start
    ;;
down)
    lab_stop
    rm -rf "$lab"
    ;;
exec)
    [ $# -eq 3 ] || die "usage: run.sh exec HOST SCRIPT"
    host_exec "$2" 600 <<<"$3"
    ;;
push) push ;;
list) list_cases ;;
case)
    shift
    run_cases "$@"
    ;;
inside)
    for file in "$here"/cases/*.sh; do
        # shellcheck disable=SC1090
        . "$file"
    done
    "case_$2"
    ;;
*) check "$@" ;;
esac
