#!/bin/bash
# Cells that move while weft-migrate is killed at every phase, refused, cancelled, asked
# twice: never two running, none lost (reliability tests 37, 39 to 41, real processes).
#
#   h1: weft-cell --- weft-migrate send === TLS === weft-migrate receive --- weft-cell :h2
#                  \____________ the row, a file here ____________/
#
# Both "hosts" are folders on one machine; the cells have no vif.
set -u
cd "$(dirname "$0")/../.." || exit 1
suite=migrate_faults
. tests/smoke/lib.bash
share=$PWD/build/share
"$bin/weft-localxen" --dir "$dir/xen" >"$dir/xen.log" 2>&1 &
started $!
until_true 10 test -S "$dir/xen/xenstored" || give_up "weft-localxen does not start"
"$bin/weft" pki init "$dir/pki" >"$dir/pki.log" 2>&1 || give_up "no certificates: $(cat "$dir/pki.log")"
for h in h1 h2; do
    "$bin/weft" pki host $h --dir "$dir/pki" >>"$dir/pki.log" 2>&1 || give_up "$(tail -n 1 "$dir/pki.log")"
done
run_case() { DIR=$dir BIN=$bin IMAGE=$share/cell.img python3 tests/smoke/migrate_faults.py "$1"; }
[ $# -gt 0 ] || set -- memory-is-equal source-killed destination-killed refused same-vm-twice \
    eight-at-once dirtying-everything cancelled postcopy
for case; do
    check "$case" run_case "$case"
    [ -z "${VERBOSE:-}" ] || cat "$dir/said"
done
finish
