#!/bin/bash
# Runs the benchmarks: see bench.py --help.  Programs must be built (make bench
# does that first).  -B: no byte code beside the sources.
exec /usr/bin/python3 -B "$(dirname "$(readlink -f "$0")")/bench.py" "$@"
