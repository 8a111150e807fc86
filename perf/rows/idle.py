"""Many vifs, connected and idle: what they cost."""
import contextlib
import time

import cpu
from report import Figure, Goal
from rig import BRIDGE
from rows import stream

NAME = "idle"
TITLE = "connected, idle vifs: CPU and memory"
IDLE_S = 10
BATCH = 25  # guests that connect at the same time
SETTLE_S = 5


def _connect(bench, rig, stack, n):
    """Returns how long it took until all were connected."""
    start = time.monotonic()
    for first in range(0, n, BATCH):
        bench.say(f"{NAME}: {first} of {n} vifs connected")
        batch = [rig.start_guest(stack, "idle") for _ in range(min(BATCH, n - first))]
        for g in batch:
            g.wait_ready(timeout=60)
    return time.monotonic() - start


def run(bench):
    n = bench.options.vifs
    with bench.rig() as rig, contextlib.ExitStack() as stack:
        pid = rig.vswitchd.pid
        # Each guest announces itself a few times.  To all others, that would be
        # millions of packets.
        rig.ofctl("add-flow", rig.bridge_socket(BRIDGE), "priority=9,dl_dst=ff:ff:ff:ff:ff:ff,"
                  "actions=drop")
        # The first vif brings up what all share: the backend, polling threads.
        rig.start_guest(stack, "idle").wait_ready()
        time.sleep(stream.WARM_UP_S)
        memory = cpu.own_memory_bytes(pid)
        connect_s = _connect(bench, rig, stack, n - 1) if n > 1 else 0
        bench.say(f"{NAME}: {n} vifs settle, then rest for {IDLE_S} s")
        time.sleep(SETTLE_S)
        memory = cpu.own_memory_bytes(pid) - memory
        before, t0 = cpu.snapshot(pid), time.monotonic()
        time.sleep(IDLE_S)
        spent, t1 = cpu.seconds_between(before, cpu.snapshot(pid)), time.monotonic()
        threads = sum(1 for group, _ in before.values() if group == cpu.NETBACK)
        rig.vswitchd.check()
        bench.say(f"{NAME}: taking {n} vifs down")

    percent = {group: [100 * s / (t1 - t0)] for group, s in spent.items()}
    return [
        Figure(NAME, f"{n} idle vifs, {threads} netback threads", "% of a core",
               percent[cpu.NETBACK], goal=Goal(1, at_most=True)),
        Figure(NAME, f"{n} idle vifs, polling threads", "% of a core", percent[cpu.PMD]),
        Figure(NAME, f"{n} idle vifs, the switch's other threads", "% of a core",
               [percent[cpu.MAIN][0] + percent[cpu.OTHER][0]]),
        Figure(NAME, "memory of one idle vif", "KiB", [memory / max(n - 1, 1) / 1024],
               goal=Goal(1024, at_most=True),
               note="growth of the switch's own memory from the first vif to the last; "
                    "packet buffers are shared by all vifs and left out"),
        Figure(NAME, f"{n - 1} vifs connect, {BATCH} at a time", "s", [connect_s]),
    ]
