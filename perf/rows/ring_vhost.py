"""Ring to ring beside vhost-user: two guests, one switch between them.

    weft-netfront blast > ring > weft datapath    > ring > weft-netfront sink
    testpmd flowgen   < virtio > OVS-DPDK datapath < virtio > testpmd flowgen

The peer's guests are two virtio-user ports of one testpmd, which sends at both
and drops what it receives, all on a core of its own; its ports are
dpdkvhostuserclient ports of a bridge with datapath_type=netdev in the same
binary, and the polling thread has the other core.  (Sender and receiver as
processes of their own, txonly and rxonly, would poll for that core against
each other and against the switch, which halves the peer and more.)  Ours are
measured twice.  As a rule they sleep when there is nothing to do, and then the
switch's time to wake them counts, which the peer has none of: testpmd's guests
always poll.  So the line to be compared is that of guests that always poll as
well (--poll).  Either way ours share the cores as the scheduler likes.

What counts is what the receivers got per CPU second of the switch's threads.
Of the peer's polling thread only that part of its time counts which its own
statistics call processing.

    iperf3 > TAP > weft-netfront     > ring   > weft datapath    > ring   > ... > iperf3
    iperf3 > TAP > bench_vhost_guest > virtio > OVS-DPDK datapath > virtio > ... > iperf3

TCP with segments of up to 64 KiB and blank checksums needs a guest with a stack,
which testpmd is not: there both sides have a namespace, a TAP, and a process that
joins it to the ring and sleeps when there is nothing to do.  OVS-DPDK has
userspace-tso-enable.

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
from rig import PERF_BIN, ROOT, BenchError, mac_of, run as run_command
from rows import stream, tcp

NAME = "vhost"
TITLE = "guest to guest, against vhost-user guests on OVS-DPDK's own datapath"
PEER = "vhost-user (testpmd, virtio-user) on OVS-DPDK's own datapath, same binary"
PEER_TCP = "vhost-user (a TAP behind virtio-user) on OVS-DPDK's own datapath, same binary"
BRIDGE = "brv"
SIZES = (64, 1500)
CONNECT_S = 20
# Open vSwitch's buffers for vhost ports.  Without TCP no offloads, as it comes.
MEMORY = "dpdk-alloc-mem=2048"
SETTINGS = (MEMORY, "userspace-tso-enable=false")
SETTINGS_TCP = (MEMORY, "userspace-tso-enable=true")
GOAL = Goal(1.5, on="ratio")
POLLS = "static grants, guests poll"
# The peer's guests poll with packets, and sleep with TCP.
WAYS = ((POLLS, GOAL), ("static grants", None), ("grant copy", None))
WAYS_TCP = (("static grants", GOAL), ("grant copy", None))


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


@contextlib.contextmanager
def _bridge(rig):
    """Two vhost-user ports, each to the other."""
    rig.vsctl("add-br", BRIDGE, "--", "set", "Bridge", BRIDGE, "datapath_type=netdev")
    try:
        for i in (1, 2):
            rig.vsctl("add-port", BRIDGE, f"vhost{i}", "--", "set", "Interface", f"vhost{i}",
                      "type=dpdkvhostuserclient", f"options:vhost-server-path={rig.dir}/vhost{i}",
                      f"ofport_request={i}")
        rig.add_flows(BRIDGE, [f"priority=9,in_port={i},actions=output:{3 - i}" for i in (1, 2)])
        yield
    finally:
        if rig.vswitchd.popen.poll() is None:
            rig.vsctl("--if-exists", "del-br", BRIDGE)


def _window(bench, rig, label, guests):
    """A stream.Sample whose PMD time is only what was spent on packets."""
    time.sleep(stream.WARM_UP_S)
    with stream.profile(bench, rig, label):
        rig.appctl("dpif-netdev/pmd-stats-clear")
        t0, (packets0, octets0) = time.monotonic(), _delivered(rig)
        cpu0 = cpu.snapshot(rig.vswitchd.pid)
        time.sleep(bench.seconds)
        share = _processing(rig)
        t1, (packets1, octets1) = time.monotonic(), _delivered(rig)
        spent = cpu.seconds_between(cpu0, cpu.snapshot(rig.vswitchd.pid))
    for p in (*guests, rig.vswitchd):
        p.check()
    spent[cpu.PMD] *= share
    return stream.Sample(t1 - t0, packets1 - packets0, octets1 - octets0, spent)


def _vhost(bench, rig, label, size):
    with contextlib.ExitStack() as stack:
        stack.enter_context(_bridge(rig))
        guests = _guests(rig, stack, size)
        _await_traffic(rig, guests)
        return _window(bench, rig, label, [guests])


# --- TCP -----------------------------------------------------------------------


@contextlib.contextmanager
def _stream(rig, client, server, ip, seconds):
    """One connection of iperf3, while the block runs."""
    with contextlib.ExitStack() as stack:
        listener = rig.spawn(stack, "iperf3-server", ["iperf3", "-s", "-1", "--forceflush"],
                             netns=server)
        tcp.await_listener(server)
        sender = rig.spawn(stack, "iperf3-client", ["iperf3", "-c", ip, "-t", f"{seconds:.0f}"],
                           netns=client)
        yield
        listener.check()
        sender.check()


def _tcp_weft(bench, rig, label, *how):
    with contextlib.ExitStack() as stack:
        guests = tcp.setup_weft(rig, stack, *how)
        port = rig.port_number(f"vif{guests[1].domid}.0")
        with _stream(rig, f"{rig.netns}-g1", f"{rig.netns}-g2", "10.97.0.2", bench.seconds + 60):
            return stream.window(bench, rig, port, label)


def _tcp_guests(rig, stack):
    guests = []
    for i in (1, 2):
        rig.make_netns(stack, f"{rig.netns}-u{i}")
        guests.append(rig.spawn(stack, f"vhost-guest-{i}",
                                [f"{PERF_BIN}/bench_vhost_guest", f"{rig.dir}/vhost{i}",
                                 f"{rig.netns}-u{i}", "eth0", f"10.99.0.{i}/24", mac_of(i)]))
    try:
        tcp.await_ping(f"{rig.netns}-u1", "10.99.0.2")
    except BenchError:
        for g in guests:
            g.check()
        raise
    return guests


def _check_offloads(guest):
    """The comparison is one only if segments go whole."""
    guest.stop()
    with open(guest.log, encoding="utf-8", errors="replace") as f:
        found = re.search(r"to the switch (\d+) frames, (\d+) large", f.read())
    if not found or int(found.group(2)) < int(found.group(1)) / 4:
        raise BenchError(f"the vhost-user guest's segments were cut:\n{guest.tail()}")


def _tcp_vhost(bench, rig, label):
    with contextlib.ExitStack() as stack:
        stack.enter_context(_bridge(rig))
        guests = _tcp_guests(rig, stack)
        with _stream(rig, f"{rig.netns}-u1", f"{rig.netns}-u2", "10.99.0.2", bench.seconds + 60):
            sample = _window(bench, rig, label, guests)
        _check_offloads(guests[0])
        return sample


# --- the row -------------------------------------------------------------------


def _rows(samples, size):
    peers = samples["vhost", size]
    figures = []
    for way, goal in WAYS:
        ours = samples[way, size]
        title = f"{size} B, {way}"
        figures += [
            Figure(NAME, title, "Mpps", [s.mpps for s in ours], PEER, [s.mpps for s in peers]),
            Figure(NAME, title, "Mpps per CPU-second",
                   [s.packets / s.weft_cpu() / 1e6 for s in ours], PEER,
                   [s.packets / s.weft_cpu() / 1e6 for s in peers], goal),
        ]
    return figures


def _tcp_rows(samples):
    peers = samples["vhost"]
    figures = []
    for way, goal in WAYS_TCP:
        ours = samples[way]
        figures += [
            Figure(NAME, f"TCP, {way}", "Gb/s", [s.gbps for s in ours], PEER_TCP,
                   [s.gbps for s in peers]),
            Figure(NAME, f"TCP, {way}", "Gb/s per CPU-second",
                   [s.octets * 8 / s.weft_cpu() / 1e9 for s in ours], PEER_TCP,
                   [s.octets * 8 / s.weft_cpu() / 1e9 for s in peers], goal),
        ]
    return figures


def _measure(bench, settings, ways, cases, label):
    """{(way, case): samples}, in turns."""
    samples = {(name, case): [] for name, _ in ways for case in cases}
    with bench.rig(*settings) as rig:
        for i in range(bench.pairs):
            for case in cases:
                for name, measure in ways:
                    what = f"{NAME} {label(case)} {name}"
                    bench.say(f"{what} {i + 1}/{bench.pairs}")
                    samples[name, case].append(measure(rig, what, case))
    return samples


def run(bench):
    _install()
    packets = (("grant copy", lambda rig, what, size: stream.weft(bench, rig, what, size)),
               ("vhost", lambda rig, what, size: _vhost(bench, rig, what, size)),
               ("static grants",
                lambda rig, what, size: stream.weft(bench, rig, what, size, static=True)),
               (POLLS, lambda rig, what, size: stream.weft(bench, rig, what, size, static=True,
                                                           poll=True)))
    segments = (("grant copy", lambda rig, what, _: _tcp_weft(bench, rig, what)),
                ("vhost", lambda rig, what, _: _tcp_vhost(bench, rig, what)),
                ("static grants",
                 lambda rig, what, _: _tcp_weft(bench, rig, what, "--static-grants")))
    figures = []
    sizes = [s for s in SIZES if bench.options.only in f"{s} B"]
    if sizes:
        samples = _measure(bench, SETTINGS, packets, sizes, lambda size: f"{size} B")
        figures += [f for size in sizes for f in _rows(samples, size)]
    if bench.options.only in "TCP":
        samples = _measure(bench, SETTINGS_TCP, segments, ["TCP"], str)
        figures += _tcp_rows({way: s for (way, _), s in samples.items()})
    return figures
