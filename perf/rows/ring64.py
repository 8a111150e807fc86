"""64-byte packets, ring to ring: with grant copies, and with static grants."""
from report import Goal
from rows import stream

NAME = "ring64"
TITLE = "64-byte packets ring to ring, against TAP ports of the same switch"


def run(bench):
    return stream.compare(bench, NAME, "64 B", 64, 0, "Mpps", lambda s: s.packets / 1e6,
                          goals=(None, Goal(2)))
