"""One bridge between ports of type synth, under one datapath after another.

    s1 (frames) > polling thread of the datapath > s2 (counts)    more ports as a case asks

The ports are the same for each: same frames, same order, same buffers, same
cost.  What is measured is CPU time of the switch's polling threads and what
arrived, both read at the start and the end of a window, after caches and
flow tables have settled.
"""
import contextlib
import itertools
import json
import re
import time
from dataclasses import dataclass, field
from statistics import median

import cpu
from report import Figure
from rig import BenchError
from rows import stream

BRIDGE = "bench"
# datapath_type, smc-enable, and what a peer is called
WAYS = {"weft": ("weft", False, "weft"),
        "netdev": ("netdev", False, "netdev"),
        "netdev+smc": ("netdev", True, "netdev, SMC on")}
PEER = ("Open vSwitch's own datapath (datapath_type=netdev) in the same binary, between the same "
        "ports")
SETTLE_S, SETTLE_MAX_S, STEP_S = 0.75, 20, 0.25
EMC_INV_PROB = 100  # Open vSwitch's default
MISSING = "datapath type weft is not in this binary"


@dataclass
class Case:
    title: str
    flows: list   # OpenFlow rules
    ports: list   # options of s1, s2, ...; None: a port that only takes
    goals: dict = field(default_factory=dict)  # {way: Goal of its ratio}
    conntrack: bool = False  # starts without connections in zone 1
    bypass: bool = False     # caches are to be of no use: netdev's are off


@dataclass
class Sample:
    seconds: float
    hz: float   # of the time stamp counter
    ports: dict  # {name: {counter: growth}}
    cpu: dict   # seconds by group of threads (cpu.py)
    settled: bool = True
    cached: float = 0  # % of the packets that an exact-match cache knew

    @property
    def packets(self):
        """Delivered, by all ports together."""
        return sum(p["tx_packets"] for p in self.ports.values())

    @property
    def lost_percent(self):
        """Received and not delivered; what is under way makes it inexact."""
        came = sum(p["rx_packets"] for p in self.ports.values())
        return 100 * (came - self.packets) / max(came, 1)

    @property
    def polling(self):
        return max(self.cpu[cpu.PMD], 1e-9)

    @property
    def mpps_per_cpu(self):
        return self.packets / self.polling / 1e6

    @property
    def cycles(self):
        return self.polling * self.hz / max(self.packets, 1)

    @property
    def mpps(self):
        return self.packets / self.seconds / 1e6


def ways(bench, rig):
    """The ways that were asked for and that this binary has; ways of one
    datapath are neighbours."""
    wanted = [w for w in WAYS if w in bench.options.datapaths]
    have = [w for w in wanted if rig.has_datapath(WAYS[w][0])]
    if not have:
        raise BenchError(f"--datapaths {','.join(bench.options.datapaths)}: none is in this binary")
    return have


def by_datapath(names):
    return [(d, list(group)) for d, group in itertools.groupby(names, lambda w: WAYS[w][0])]


@contextlib.contextmanager
def bridge(rig, datapath, case):
    """The case's bridge, its ports stopped."""
    args = ["add-br", BRIDGE, "--", "set", "Bridge", BRIDGE, f"datapath_type={datapath}",
            "fail_mode=secure"]
    for i, options in enumerate(case.ports, 1):
        args += ["--", "add-port", BRIDGE, f"s{i}", "--", "set", "Interface", f"s{i}",
                 "type=synth", f"ofport_request={i}", "options:stopped=true"]
        args += [f"options:{o}" for o in options or ()]
    try:
        rig.vsctl(*args)
        rig.add_flows(BRIDGE, case.flows)
        if case.conntrack:
            rig.ofctl("ct-flush-zone", rig.bridge_socket(BRIDGE), "1")
        yield
    finally:
        if rig.vswitchd.popen.poll() is None:
            rig.appctl("synth/rate", "stop")
            rig.vsctl("--if-exists", "del-br", BRIDGE)


def use(rig, way, bypass=False):
    """Switches to a way of the datapath that the bridge is on."""
    if WAYS[way][0] == "netdev":
        rig.vsctl("set", "Open_vSwitch", ".",
                  f"other_config:smc-enable={'true' if WAYS[way][1] else 'false'}",
                  f"other_config:emc-insert-inv-prob={0 if bypass else EMC_INV_PROB}")


def _cache(rig, way):
    """Packets so far, and how many of them the exact-match cache knew."""
    if WAYS[way][0] == "weft":
        threads = json.loads(rig.appctl("weft/show", "--json"))[0]["threads"]
        return (sum(t["packets"] for t in threads), sum(t["cache-hits"] for t in threads))
    text = rig.appctl("dpif-netdev/pmd-stats-show").split("main thread")[0]
    return tuple(sum(int(n) for n in re.findall(rf"{what}: (\d+)", text))
                 for what in ("packets received", "emc hits"))


def start(rig, case, but=()):
    """Lets all ports send, each at the rate of its options or unlimited."""
    for i, options in enumerate(case.ports, 1):
        if f"s{i}" in but:
            continue
        rates = [o.split("=")[1] for o in options or () if o.startswith("rate=")]
        rig.appctl("synth/rate", rates[0] if rates else "0", f"s{i}")


def _flows(case):
    counts = [int(o.split("=")[1]) for options in case.ports for o in options or ()
              if o.startswith("flows=")]
    return max(counts, default=0)


def _unlimited(options):
    return options and not any(o.startswith("rate=") for o in options)


def _snapshot(rig):
    return rig.synth(), cpu.snapshot(rig.vswitchd.pid)


def _between(before, after):
    (a, cpu_a), (b, cpu_b) = before, after
    ports = {name: {k: v - a["ports"][name][k] for k, v in p.items()
                    if k.startswith(("rx_", "tx_"))}
             for name, p in b["ports"].items()}
    return Sample((b["tsc"] - a["tsc"]) / b["tsc_hz"], b["tsc_hz"], ports,
                  cpu.seconds_between(cpu_a, cpu_b))


def settle(rig, case):
    """Waits until every flow was seen and the rate no longer changes.  False if
    it still does after SETTLE_MAX_S."""
    begin, last = time.monotonic(), 0
    first = before = _snapshot(rig)
    while time.monotonic() - begin < SETTLE_MAX_S:
        time.sleep(STEP_S)
        after = _snapshot(rig)
        rate = _between(before, after).packets
        seen = min(p["rx_packets"] for name, p in _between(first, after).ports.items()
                   if _unlimited(case.ports[int(name[1:]) - 1]))
        if (time.monotonic() - begin > SETTLE_S and seen > 2 * _flows(case) and last and
                abs(rate / last - 1) < 0.05):
            return True
        before, last = after, rate
    return False


def window(bench, rig, label, seconds=None):
    """What happens from now on for a while."""
    with stream.profile(bench, rig, label):
        before = _snapshot(rig)
        time.sleep(seconds or bench.seconds / 3)
        sample = _between(before, _snapshot(rig))
    rig.vswitchd.check()
    if not sample.packets:
        raise BenchError(f"{label}: nothing arrives; the switch says:\n{rig.vswitchd.tail()}")
    return sample


def measure(bench, rig, case, names, label):
    """{way: Sample} of ways that share a datapath."""
    samples = {}
    with bridge(rig, WAYS[names[0]][0], case):
        start(rig, case)
        for way in names:
            use(rig, way, case.bypass)
            settled = settle(rig, case)
            came, known = _cache(rig, way)
            samples[way] = window(bench, rig, f"{label} {way}")
            samples[way].settled = settled
            came2, known2 = _cache(rig, way)
            samples[way].cached = 100 * (known2 - known) / max(came2 - came, 1)
    return samples


def _note(case, samples):
    notes = [] if "weft" in samples else [MISSING]
    for way, of_way in samples.items():
        lost = median(s.lost_percent for s in of_way)
        unsettled = sum(not s.settled for s in of_way)
        if lost > 0.1:
            notes.append(f"{case.title}: {way} lost {lost:.2g} % of the packets")
        if unsettled:
            notes.append(f"{case.title}: {way} had not settled after {SETTLE_MAX_S} s, "
                         f"{unsettled} of {len(of_way)} times")
    return "; ".join(notes)


def figures(row, case, samples):
    """One figure a peer: packets per CPU-second, cycles and wall rate beside."""
    out = []
    ours = samples.get("weft", [])
    for way, theirs in samples.items():
        if way == "weft" and len(samples) > 1:
            continue
        theirs = [] if way == "weft" else theirs
        bypass = {"% known to caches": ([s.cached for s in ours], [s.cached for s in theirs])}
        out.append(Figure(
            row, f"{case.title}, against {WAYS[way][2]}" if theirs else case.title,
            "Mpps per CPU-second", [s.mpps_per_cpu for s in ours], PEER if theirs else "",
            [s.mpps_per_cpu for s in theirs], case.goals.get(way),
            note=_note(case, samples),
            beside={"cycles a packet": ([s.cycles for s in ours], [s.cycles for s in theirs]),
                    "Mpps": ([s.mpps for s in ours], [s.mpps for s in theirs]),
                    **(bypass if case.bypass else {})}))
    return out


def chosen(bench, cases):
    return [c for c in cases if bench.options.only in c.title]


def compare(bench, row, cases):
    """Each case under each way, in turns."""
    out = []
    with bench.rig() as rig:
        names = ways(bench, rig)
        for case in chosen(bench, cases):
            samples = {w: [] for w in names}
            for i in range(bench.pairs):
                for datapath, group in by_datapath(names):
                    bench.say(f"{row} {i + 1}/{bench.pairs}: {case.title}, {datapath}")
                    for way, s in measure(bench, rig, case, group, case.title).items():
                        samples[way].append(s)
            out += figures(row, case, samples)
    return out
