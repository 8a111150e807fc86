"""One quiet port beside hogs, all polled by one thread.

    s1 > s2        quiet: 10,000 stamped packets a second
    s4... > s3     hogs: as fast as polled

How long a packet of the quiet port takes, from its arrival on, and whether
the hogs are served alike.
"""
from report import Figure, Goal
from rows import synth
from rows.fairness import jain

NAME = "quiet"
TITLE = "a quiet port beside 1, 8, 31 hogs on one polling thread"
HOGS = (0, 1, 8, 31)
QUIET = ["flows=1", "rate=10000", "stamp=true"]
# What a hog may take before the next one's turn: the largest burst that either
# datapath gathers.
TURN_PACKETS = 128


def _case(hogs):
    flows = ["in_port=1,actions=output:2"]
    flows += [f"in_port={4 + i},udp,actions=output:3" for i in range(hogs)]
    return synth.Case(f"{hogs} hogs", flows,
                      [QUIET, ["stamp=true"], None] + [["flows=1000"]] * hogs)


def _measure(bench, rig, way, hogs):
    """p50 and p99 in microseconds, Jain's index of the hogs, hogs' packets a second."""
    case = _case(hogs)
    with synth.bridge(rig, synth.WAYS[way][0], case):
        synth.use(rig, way)
        synth.start(rig, case)
        synth.settle(rig, case)
        rig.appctl("synth/clear", "s2")
        sample = synth.window(bench, rig, f"quiet {hogs} {way}", bench.seconds)
        seen = rig.synth("s2")["ports"]["s2"]
    shares = [sample.ports[f"s{4 + i}"]["rx_packets"] for i in range(hogs)]
    return {"p50": seen["p50_ns"] / 1e3, "p99": seen["p99_ns"] / 1e3,
            "jain": jain(shares) if hogs else 1, "pps": sum(shares) / sample.seconds}


def _of_allowed(idle, loaded, hogs):
    """p99 as a part of: p99 without hogs, and a turn of each hog."""
    return [s["p99"] / (i["p99"] + hogs * TURN_PACKETS * 1e6 / (s["pps"] or 1))
            for i, s in zip(idle, loaded)]


def run(bench):
    with bench.rig() as rig:
        names = [w for w in synth.ways(bench, rig) if w != "netdev+smc"]
        got = {(w, h): [] for w in names for h in HOGS}
        for i in range(bench.pairs):
            for hogs in HOGS:
                for way in names:
                    bench.say(f"{NAME} {i + 1}/{bench.pairs}: {hogs} hogs, {way}")
                    got[way, hogs].append(_measure(bench, rig, way, hogs))

    def column(way, hogs, key):
        return [s[key] for s in got.get((way, hogs), [])]

    def allowed(way, hogs):
        return _of_allowed(got.get((way, 0), []), got.get((way, hogs), []), hogs)

    figures = []
    for hogs in HOGS:
        figures.append(Figure(
            NAME, f"quiet port, {hogs} hogs: p99", "us", column("weft", hogs, "p99"), synth.PEER,
            column("netdev", hogs, "p99"), note="" if "weft" in names else synth.MISSING,
            beside={"p50, us": (column("weft", hogs, "p50"), column("netdev", hogs, "p50"))}))
        if hogs:
            figures.append(Figure(
                NAME, f"quiet port, {hogs} hogs: p99, of idle and a turn a hog", "x",
                allowed("weft", hogs), synth.PEER, allowed("netdev", hogs),
                Goal(1, at_most=True)))
        if hogs > 1:
            figures.append(Figure(
                NAME, f"{hogs} hogs: Jain's index", "", column("weft", hogs, "jain"), synth.PEER,
                column("netdev", hogs, "jain"), Goal(0.99), digits=5))
    return figures
