"""One stream through the switch, measured at its far port.

The switch's own counter of what it handed to the receiver, and the CPU time of
its threads, both read at the start and the end of a window in the middle of
the stream: start-up and tear-down stay outside.
"""
import contextlib
import os
import subprocess
import time
from dataclasses import dataclass

import cpu
from report import Figure
from rig import PERF_BIN, BenchError, Process, mac_of

WARM_UP_S = 0.7
TAP_PEER = "TAP ports (type=tap) of the same switch, frames from a packet socket"


@dataclass
class Sample:
    seconds: float
    packets: int
    octets: int
    cpu: dict  # seconds by group of threads (cpu.py)

    @property
    def mpps(self):
        return self.packets / self.seconds / 1e6

    @property
    def gbps(self):
        return self.octets * 8 / self.seconds / 1e9

    def weft_cpu(self):
        """CPU seconds of who moves packets between rings: the vifs' own
        threads and the polling ones, whether they found work or not."""
        return max(self.cpu[cpu.NETBACK] + self.cpu[cpu.PMD], 1e-9)

    def tap_cpu(self):
        """And between TAPs: the switch's main thread, or weft's for such ports."""
        return max(self.cpu[cpu.MAIN], 1e-9)


def _now(rig, port):
    packets, octets = rig.port_counters()[port]
    return time.monotonic(), packets, octets, cpu.snapshot(rig.vswitchd.pid)


@contextlib.contextmanager
def profile(bench, rig, label):
    """With --perf DIR: perf record of the switch while the block runs."""
    if not bench.options.perf:
        yield
        return
    os.makedirs(bench.options.perf, exist_ok=True)
    out = os.path.join(bench.options.perf, label.replace(" ", "-") + ".data")
    # The clock: a virtual machine's cycle counter may be there and count nothing.
    recorder = subprocess.Popen(["perf", "record", "-q", "-g", "-e", "cpu-clock", "-F", "997",
                                 "-o", out, "-p", str(rig.vswitchd.pid)],
                                stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        recorder.send_signal(2)
        recorder.wait()


def window(bench, rig, port, label):
    """Measures what goes out at OpenFlow port 'port' now."""
    time.sleep(WARM_UP_S)
    with profile(bench, rig, label):
        t0, packets0, octets0, cpu0 = _now(rig, port)
        time.sleep(bench.seconds)
        t1, packets1, octets1, cpu1 = _now(rig, port)
    rig.vswitchd.check()
    if packets1 == packets0:
        raise BenchError(f"{label}: nothing arrives; the switch says:\n{rig.vswitchd.tail()}")
    return Sample(t1 - t0, packets1 - packets0, octets1 - octets0,
                  cpu.seconds_between(cpu0, cpu1))


def weft(bench, rig, label, size, gso=0, static=False, poll=False):
    """Guest (blast) to guest (sink), through the rings.  'poll': neither ever sleeps."""
    how = ["--static-grants"] * static + ["--poll"] * poll
    with contextlib.ExitStack() as stack:
        sink = rig.start_guest(stack, "sink", *how)
        sink.wait_ready()
        port = rig.port_number(f"vif{sink.domid}.0")
        args = ["--size", size, "--dst-mac", mac_of(sink.domid)] + how
        blast = rig.start_guest(stack, "blast", *args, *(["--gso", gso] if gso else []))
        blast.wait_ready()
        sample = window(bench, rig, port, label)
        sink.check()
        blast.check()
        return sample


def tap(bench, rig, label, size, gso=0):
    """Packet socket on one TAP port to another TAP port, where the kernel
    drops what arrives: its MAC address is nobody's."""
    src, dst = "02:00:00:01:00:01", "02:00:00:01:00:02"
    send = f"{PERF_BIN}/bench_tap_frames"
    with contextlib.ExitStack() as stack:
        rig.add_taps(stack, "tap1", "tap2")
        # The switch learns where dst is.
        announce = Process(rig, "tap-announce", [send, "tap2", "64", "0", dst,
                                                 "ff:ff:ff:ff:ff:ff", "0"], netns=rig.netns)
        stack.callback(announce.stop)
        announce.popen.wait(10)
        p = Process(rig, "tap-frames", [send, "tap1", str(size), str(gso), src, dst, "3600"],
                    netns=rig.netns)
        stack.callback(p.stop)
        sample = window(bench, rig, rig.port_number("tap2"), label)
        p.check()
        return sample


def compare(bench, row, what, size, gso, unit, amount, goals):
    """Streams by grant copy, by static grants and between TAPs, in turns.

    amount(sample)  how much was moved, in units such that amount / seconds is
                    in 'unit'
    goals           for grant copy and static grants, per CPU second; or None
    """
    ways = (("grant copy", lambda rig, label: weft(bench, rig, label, size, gso)),
            ("TAP", lambda rig, label: tap(bench, rig, label, size, gso)),
            ("static grants", lambda rig, label: weft(bench, rig, label, size, gso, True)))
    samples = {name: [] for name, _ in ways}
    with bench.rig() as rig:
        for i in range(bench.pairs):
            for name, measure in ways:
                bench.say(f"{row} {i + 1}/{bench.pairs}: {name}")
                samples[name].append(measure(rig, f"{what} {name}"))

    taps = samples["TAP"]
    figures = []
    for name, goal in zip(("grant copy", "static grants"), goals):
        title = f"{what}, {name}"
        ours = samples[name]
        figures += [
            Figure(row, title, unit, [amount(s) / s.seconds for s in ours], TAP_PEER,
                   [amount(s) / s.seconds for s in taps]),
            Figure(row, title, f"{unit} per CPU-second", [amount(s) / s.weft_cpu() for s in ours],
                   TAP_PEER, [amount(s) / s.tap_cpu() for s in taps], goal),
        ]
    return figures
