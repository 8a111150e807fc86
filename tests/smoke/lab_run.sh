#!/bin/bash
# weft lab run: a VM moves between two hosts while a guest has fifty connections and a
# download open to it, and the check says that all of them live; weft lab traffic, which
# holds them, says so, too, when one does not.
#
#   h1                         h2
#    g1 10.1.0.1: traffic       g2 10.1.0.2
#    cell1 10.1.200.1  ------>
set -u
cd "$(dirname "$0")/../.." || exit 1
suite=lab_run
. tests/smoke/lib.bash
need_root "network namespaces"
name=lrn$$
lab=$dir/l
at_end 'W down >/dev/null 2>&1'
W() { "$bin/weft" lab "$1" --name "$name" --dir "$lab" "${@:2}"; }

# --- what it says of a server that is none ----------------------------------------
# told FAULT RESULT WORDS: of a server with that fault, it exits with RESULT and says WORDS.
told() {
    local status
    timeout 60 unshare -n python3 tests/smoke/lab_run.py "$1" "$bin/weft" >"$dir/told" 2>&1
    status=$?
    cat "$dir/told"
    [ $status -eq "$2" ] && grep -q "$3" "$dir/told"
}
check all-is-well told none 0 ': 0 broken, .* no byte differs'
check an-echo-that-differs told echo 1 '1 broken, .*BYTES DIFFER.*: connection 3, after .*a byte differs'
check a-download-that-differs told download 1 \
    '1 broken, .*BYTES DIFFER.*: the download, after 1000000 bytes: a byte differs'
check a-connection-that-is-closed told close 1 '1 broken, .*no byte differs.*: connection 3, .*closed'

# --- a lab ------------------------------------------------------------------------
once() { W run --pool --hosts 2 --guests 1 --cells 1 --once >"$dir/run" 2>&1 || { cat "$dir/run"; return 1; }; }
check run-once once
check a-vm-moved grep '^ok migration cell1 h1 > h2: blackout' "$dir/run"
check its-connections-live grep -E \
    '^ok traffic cell1: 50 connections and a download: 0 broken, [0-9]+ MB, no byte differs' "$dir/run"
down() { [ ! -e "$lab" ] && ! grep -lz "WEFT_PROC=$lab/" /proc/[0-9]*/environ 2>/dev/null; }
check nothing-is-left down
finish
