"""Ring to ring beside vhost-user: two guests, one switch between them.

    weft-netfront blast > ring > weft datapath    > ring > weft-netfront sink
    testpmd flowgen   < virtio > OVS-DPDK datapath < virtio > testpmd flowgen

The peer's guests are two virtio-user ports of one testpmd, which sends at both
and drops what it receives, all on a core of its own; its ports are
dpdkvhostuserclient ports of a bridge with datapath_type=netdev in the same
binary, and the polling thread has the other core.  (Sender and receiver as
processes of their own, txonly and rxonly, would poll for that core against
each other and against the switch, which halves the peer and more.)  Ours all
sleep and share the cores as the scheduler likes.

What counts is what the receivers got per CPU second of the switch's threads.
Of the peer's polling thread only that part of its time counts which its own
statistics call processing.

vhost-user has its guests' memory mapped all the time, as netback has pages
under static grants; grant copy is what Xen's guests without them cost.
"""
import contextlib
import os
import re
import shutil
import time

import cpu
from report import Figure, Goal
from rig import ROOT, BenchError, run as run_command
from rows import stream

NAME = "vhost"
TITLE = "guest to guest, against vhost-user guests on OVS-DPDK's own datapath"
PEER = "vhost-user (testpmd, virtio-user) on OVS-DPDK's own datapath, same binary"
BRIDGE = "brv"
SIZES = (64, 1500)
CONNECT_S = 20
# Open vSwitch's buffers for vhost ports; no offloads there, as it comes.
SETTINGS = ("dpdk-alloc-mem=2048", "userspace-tso-enable=false")


def _install():
    if not shutil.which("dpdk-testpmd"):
        run_command([f"{ROOT}/lib/deps.sh", f"{ROOT}/perf/peers.txt"], timeout=600)


def _guests(rig, stack, size):
    vdevs = [f"--vdev=net_virtio_user{i},path={rig.dir}/vhost{i},server=1,queues=1,"
             "queue_size=256" for i in (1, 2)]
    return rig.spawn(stack, "testpmd",
                     ["dpdk-testpmd", "--no-huge", "--legacy-mem", "-m", "256", "--no-pci",
                      "--no-telemetry", "--no-shconf", "--file-prefix", f"weft-bench-{os.getpid()}",
                      "--lcores", "0@0,1@0", *vdevs, "--", "--auto-start",
                      "--forward-mode=flowgen", f"--txpkts={size}", "--stats-period=3600",
                      "--total-num-mbufs=8192"])


def _delivered(rig):
    """Packets and bytes that the receivers got."""
    text = rig.ofctl("dump-ports", rig.bridge_socket(BRIDGE))
    found = re.findall(r"port +\d+: rx .*?tx pkts=(\d+), bytes=(\d+)", text, re.S)
    return sum(int(n) for n, _ in found), sum(int(n) for _, n in found)


def _processing(rig):
    """The polling threads' cycles that moved packets, of all since the last clear."""
    text = rig.appctl("dpif-netdev/pmd-stats-show").split("main thread")[0]
    cycles = {what: sum(int(n) for n in re.findall(rf"{what} cycles: (\d+)", text))
              for what in ("processing", "idle")}
    return cycles["processing"] / max(sum(cycles.values()), 1)


def _await_traffic(rig, guests):
    end = time.monotonic() + CONNECT_S
    while time.monotonic() < end:
        before = _delivered(rig)
        time.sleep(0.3)
        if _delivered(rig)[0] > before[0] > 0:
            return
        guests.check()
    raise BenchError(f"nothing arrives at testpmd; the switch says:\n{rig.vswitchd.tail()}")


def _vhost(bench, rig, label, size):
    """A stream.Sample whose PMD time is only what was spent on packets."""
    with contextlib.ExitStack() as stack:
        rig.vsctl("add-br", BRIDGE, "--", "set", "Bridge", BRIDGE, "datapath_type=netdev")
        stack.callback(rig.vsctl, "--if-exists", "del-br", BRIDGE)
        for i in (1, 2):
            rig.vsctl("add-port", BRIDGE, f"vhost{i}", "--", "set", "Interface", f"vhost{i}",
                      "type=dpdkvhostuserclient", f"options:vhost-server-path={rig.dir}/vhost{i}",
                      f"ofport_request={i}")
        rig.add_flows(BRIDGE, [f"priority=9,in_port={i},actions=output:{3 - i}" for i in (1, 2)])
        guests = _guests(rig, stack, size)
        _await_traffic(rig, guests)
        time.sleep(stream.WARM_UP_S)
        with stream.profile(bench, rig, label):
            rig.appctl("dpif-netdev/pmd-stats-clear")
            t0, (packets0, octets0) = time.monotonic(), _delivered(rig)
            cpu0 = cpu.snapshot(rig.vswitchd.pid)
            time.sleep(bench.seconds)
            share = _processing(rig)
            t1, (packets1, octets1) = time.monotonic(), _delivered(rig)
            spent = cpu.seconds_between(cpu0, cpu.snapshot(rig.vswitchd.pid))
        for p in (guests, rig.vswitchd):
            p.check()
        spent[cpu.PMD] *= share
        return stream.Sample(t1 - t0, packets1 - packets0, octets1 - octets0, spent)


def _rows(samples, size):
    peers = samples["vhost", size]
    figures = []
    for way, goal in (("static grants", Goal(1.5, on="ratio")), ("grant copy", None)):
        ours = samples[way, size]
        title = f"{size} B, {way}"
        figures += [
            Figure(NAME, title, "Mpps", [s.mpps for s in ours], PEER, [s.mpps for s in peers]),
            Figure(NAME, title, "Mpps per CPU-second",
                   [s.packets / s.weft_cpu() / 1e6 for s in ours], PEER,
                   [s.packets / s.weft_cpu() / 1e6 for s in peers], goal),
        ]
    return figures


def run(bench):
    _install()
    ways = (("grant copy", lambda rig, label, size: stream.weft(bench, rig, label, size)),
            ("vhost", lambda rig, label, size: _vhost(bench, rig, label, size)),
            ("static grants",
             lambda rig, label, size: stream.weft(bench, rig, label, size, static=True)))
    samples = {(name, size): [] for name, _ in ways for size in SIZES}
    with bench.rig(*SETTINGS) as rig:
        for i in range(bench.pairs):
            for size in SIZES:
                for name, measure in ways:
                    label = f"{NAME} {size} B {name}"
                    bench.say(f"{label} {i + 1}/{bench.pairs}")
                    samples[name, size].append(measure(rig, label, size))
    return [figure for size in SIZES for figure in _rows(samples, size)]
