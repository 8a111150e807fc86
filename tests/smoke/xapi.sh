#!/bin/bash
# weft-xapid on two hosts of a pool: real pool database, real HTTPS; weft-cell,
# weft-domain and weft-migrate are stand-ins (xapi_fakes.py).
#
#   client --- https 127.0.0.1, 127.0.0.2 --- weft-xapid h1, h2 --- ovsdb-server
#                                                  |
#                               weft-cell, weft-domain, weft-migrate (fakes)
# shellcheck disable=SC2317,SC2016 # called by name; evaluated at the end
set -u
cd "$(dirname "$0")/../.." || exit
export suite=xapi
# shellcheck source=tests/smoke/lib.bash
. tests/smoke/lib.bash
end_all() {
    local pid
    while read -r pid; do smoke_kill "$pid"; done < <(cat "$dir"/pids "$dir"/h?/*.pid)
}
at_end end_all
/usr/bin/python3 -B tests/smoke/xapi.py "$bin" "$dir" 2>"$dir/said"
exit
