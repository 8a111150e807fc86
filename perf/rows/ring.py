"""The ring code by itself, in one thread: no switch, no hand-over, warm
pages.  What a packet must cost at the least."""
import os
import re

from report import Figure
from rig import PERF_BIN, BenchError, run as run_command

NAME = "ring"
TITLE = "netback's ring code alone (bench_ring)"


def run(bench):
    program = f"{PERF_BIN}/bench_ring"
    if not os.access(program, os.X_OK):
        raise BenchError("build/plain/perf/bench_ring is not built; run make bench")
    lines = run_command([program]).splitlines()
    figures = []
    for line in lines[1:]:
        # direction, frame, path, cycles a packet, packets/s, Gb/s
        found = re.match(r"(from guest|to guest|across|one copy)\s+(.+?)\s+(grant copy|static)\s+(\S+)\s", line)
        if not found:
            raise BenchError(f"bench_ring printed: {line}")
        direction, frame, path, cycles = found.groups()
        figures.append(Figure(NAME, f"{frame} {direction}, {path}", "cycles per packet",
                              [float(cycles)]))
    if not figures:
        raise BenchError("bench_ring printed no case")
    return figures
