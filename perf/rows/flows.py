"""What it costs to record every flow, and what it costs Open vSwitch.

Weft records each packet in its 5-tuple's record, however wide the flows are.
Open vSwitch's NetFlow makes a flow of the datapath of each 5-tuple instead.
The collector is a socket that nobody reads.

Between ports that cost next to nothing it shows what recording costs by itself;
between the rings of two guests, what it costs a switch.
"""
import contextlib
import time

from report import Figure, Goal
from rig import BRIDGE as VIFS
from rig import BenchError, mac_of
from rows import stream, synth

NAME = "flows"
TITLE = "all flows recorded against none, and against Open vSwitch with its NetFlow on"

PORT = 9995
TURNS = 3  # windows with records between two guests
SINK = ("import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        f"s.bind(('127.0.0.1', {PORT})); time.sleep(1e6)")
NOT = "the same switch, flows not recorded"
NETFLOW = "datapath_type=netdev in the same binary with its own NetFlow on"


@contextlib.contextmanager
def _recording(rig, bridge):
    rig.vsctl("--", "--id=@n", "create", "NetFlow", f'targets="127.0.0.1:{PORT}"',
              "active_timeout=60", "external_ids:weft-cache-max=2097152",
              "--", "set", "Bridge", bridge, "netflow=@n")
    try:
        yield
    finally:
        rig.vsctl("clear", "Bridge", bridge, "netflow")


def _measure(bench, rig, case, datapath):
    """(without, with)"""
    with synth.bridge(rig, datapath, case):
        synth.start(rig, case)
        synth.settle(rig, case)
        off = synth.window(bench, rig, f"{case.title} {datapath}")
        with _recording(rig, synth.BRIDGE):
            synth.settle(rig, case)
            on = synth.window(bench, rig, f"{case.title} {datapath} recorded")
    return off, on


def _pass_all(rig, port, flows):
    """Until each flow, in turn, has had its packet."""
    begin, (first, _) = time.monotonic(), rig.port_counters()[port]
    while rig.port_counters()[port][0] - first < 2 * flows:
        if time.monotonic() - begin > 30:
            raise BenchError(f"{flows} flows do not get through")
        time.sleep(0.1)


def _rings(bench, rig, flows):
    """([without], [with]), 64 bytes from guest to guest.  Threads meet where they will, which
    makes one pair of guests half as fast again as another; so windows take turns within one,
    and beside each with records stands the mean of those before and after it."""
    with contextlib.ExitStack() as stack:
        sink = rig.start_guest(stack, "sink")
        sink.wait_ready()
        port = rig.port_number(f"vif{sink.domid}.0")
        blast = rig.start_guest(stack, "blast", "--size", 64, "--dst-mac", mac_of(sink.domid),
                                "--flows", flows)
        blast.wait_ready()

        def measure(label):
            s = stream.window(bench, rig, port, f"rings {flows}{label}")
            return s.packets / s.weft_cpu() / 1e6

        off, on = [measure("")], []
        for _ in range(TURNS):
            with _recording(rig, VIFS):
                _pass_all(rig, port, flows)
                on.append(measure(" recorded"))
            off.append(measure(""))
        sink.check()
        blast.check()
    return [(a + b) / 2 for a, b in zip(off, off[1:])], on


def _ring_figures(bench, rig):
    out = []
    for title, flows in (("1 flow", 1), ("10 k flows", 10000), ("1 M flows", 1000000)):
        title = f"ring to ring, {title}"
        if bench.options.only not in title:
            continue
        off, on = [], []
        for i in range(bench.pairs):
            bench.say(f"{NAME} {i + 1}/{bench.pairs}: {title}")
            without, recorded = _rings(bench, rig, flows)
            off += without
            on += recorded
        out.append(Figure(NAME, f"{title}, recorded against not", "Mpps per CPU-second",
                          on, NOT, off, Goal(0.95, on="ratio")))
    return out


def _figure(case, what, peer, ours, theirs, goal):
    return Figure(NAME, f"{case.title}, {what}", "Mpps per CPU-second",
                  [s.mpps_per_cpu for s in ours], peer, [s.mpps_per_cpu for s in theirs], goal,
                  beside={"cycles a packet": ([s.cycles for s in ours],
                                              [s.cycles for s in theirs])})


def run(bench):
    cases = [synth.Case(title, ["in_port=1,udp,actions=output:2"], [[f"flows={n}"], None])
             for title, n in (("1 flow", 1), ("10 k flows", 10000), ("1 M flows", 1000000))]
    out = []
    with bench.rig() as rig:
        rig.spawn(rig, "collector", ["/usr/bin/python3", "-c", SINK], netns=rig.netns)
        datapaths = [d for d, _ in synth.by_datapath(synth.ways(bench, rig))]
        for case in synth.chosen(bench, cases):
            samples = {d: ([], []) for d in datapaths}
            for i in range(bench.pairs):
                for d in datapaths:
                    bench.say(f"{NAME} {i + 1}/{bench.pairs}: {case.title}, {d}")
                    for kept, s in zip(samples[d], _measure(bench, rig, case, d)):
                        kept.append(s)
            if "weft" in samples:
                off, on = samples["weft"]
                out.append(_figure(case, "recorded against not", NOT, on, off, None))
                if "netdev" in samples:
                    out.append(_figure(case, "recorded against Open vSwitch's NetFlow", NETFLOW,
                                       on, samples["netdev"][1], Goal(1, on="ratio")))
        if bench.options.datapath == "weft":
            out += _ring_figures(bench, rig)
    return out
