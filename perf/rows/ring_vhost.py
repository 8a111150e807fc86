"""Ring to ring beside vhost-user: two guests, one switch between them.

    weft-netfront blast > ring > weft datapath   > ring > weft-netfront sink
    testpmd txonly  > virtio > OVS-DPDK datapath > virtio > testpmd rxonly

The peer's guests are testpmd with virtio-user, its ports dpdkvhostuserclient
ports of a bridge with datapath_type=netdev in the same binary.  What counts is
what the receiver got per CPU second of the switch's threads.  Of the peer's
polling thread only that part of its time counts which its own statistics call
processing.

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


def _guest(rig, stack, i, mode, *more):
    """Both its threads may run anywhere, as ours."""
    prefix = f"weft-bench-{os.getpid()}-{i}"
    return rig.spawn(stack, f"testpmd-{mode}",
                     ["dpdk-testpmd", "--no-huge", "--legacy-mem", "-m", "256", "--no-pci",
                      "--no-telemetry", "--no-shconf", "--file-prefix", prefix,
                      "--lcores", f"0@(0-{os.cpu_count() - 1}),1@(0-{os.cpu_count() - 1})",
                      f"--vdev=net_virtio_user0,path={rig.dir}/vhost{i},server=1,queues=1",
                      "--", "--auto-start", f"--forward-mode={mode}", "--stats-period=3600",
                      "--total-num-mbufs=8192", *more])


def _delivered(rig):
    """Packets and bytes that the receiver got."""
    text = rig.ofctl("dump-ports", f"unix:{rig.dir}/{BRIDGE}.mgmt", "2")
    found = re.search(r"tx pkts=(\d+), bytes=(\d+)", text)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


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
        for g in guests:
            g.check()
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
        rig.ofctl("add-flow", f"unix:{rig.dir}/{BRIDGE}.mgmt",
                  "priority=9,in_port=1,actions=output:2")
        guests = [_guest(rig, stack, 2, "rxonly"),
                  _guest(rig, stack, 1, "txonly", f"--txpkts={size}")]
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
        for p in guests + [rig.vswitchd]:
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
