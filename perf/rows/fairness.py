"""32 busy vifs: 16 guests blast at 16 others; is everyone served alike?"""
import contextlib
import time

from report import Figure, Goal
from rig import BenchError, mac_of
from rows import stream

NAME = "fairness"
TITLE = "32 vifs under load: Jain's index over what each receiver got"
STREAMS = 16
SIZE = 1514


def jain(shares):
    """1 when all are alike, 1/n when one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(x * x for x in shares))


def _start(bench, rig, stack):
    """Returns the OpenFlow port numbers of the receivers."""
    bench.say(f"{NAME}: {2 * STREAMS} guests connect")
    sinks = [rig.start_guest(stack, "sink") for _ in range(STREAMS)]
    for g in sinks:
        g.wait_ready(timeout=60)
    ports = [rig.port_number(f"vif{g.domid}.0") for g in sinks]
    hogs = [rig.start_guest(stack, "blast", "--size", SIZE, "--dst-mac", mac_of(g.domid))
            for g in sinks]
    for g in hogs:
        g.wait_ready(timeout=60)
    return ports


def _shares(bench, rig, ports):
    before, t0 = rig.port_counters(), time.monotonic()
    time.sleep(bench.seconds)
    after, t1 = rig.port_counters(), time.monotonic()
    rig.vswitchd.check()
    return [(after[p][0] - before[p][0]) / (t1 - t0) / 1e6 for p in ports]


def run(bench):
    indexes, totals, least = [], [], []
    with bench.rig() as rig, contextlib.ExitStack() as stack:
        ports = _start(bench, rig, stack)
        time.sleep(2 * stream.WARM_UP_S)
        for i in range(bench.pairs):
            bench.say(f"{NAME} {i + 1}/{bench.pairs}")
            shares = _shares(bench, rig, ports)
            if not any(shares):
                raise BenchError(f"nothing arrives; the switch says:\n{rig.vswitchd.tail()}")
            indexes.append(jain(shares))
            totals.append(sum(shares))
            least.append(min(shares) / (sum(shares) / len(shares)))
    return [
        Figure(NAME, "Jain's index, 16 x 1,514 B", "", indexes, goal=Goal(0.99),
               digits=5),
        Figure(NAME, "the least served, of a fair share", "x", least),
        Figure(NAME, "all together", "Mpps", totals),
    ]
