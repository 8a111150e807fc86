"""64 KiB TCP segments, ring to ring: what copying costs."""
from report import Goal
from rows import stream

NAME = "blast"
TITLE = "64 KiB frames ring to ring, against TAP ports of the same switch"

# What Linux sends at its fullest: 45 segments of 1,448 bytes and 66 of headers.
SIZE, MSS = 65226, 1448


def run(bench):
    return stream.compare(bench, NAME, "64 KiB", SIZE, MSS, "Gb/s", lambda s: s.octets * 8 / 1e9,
                          goals=(Goal(40), Goal(40)))
