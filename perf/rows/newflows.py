"""New flows, each a 5-tuple of its own, that all need the slow path.

    s1 > s2    established flows at a steady rate
    s3 > s4    every packet is a new flow

Two questions: what do the established flows lose meanwhile, and what does
setting a flow up cost, CPU time of all the switch's threads counted?
"""
import time

from report import Figure, Goal
from rows import synth

NAME = "newflows"
TITLE = "a storm of new flows: established flows' loss, cost of a set-up"
STEADY_PPS, STORM_PPS, FLOOD_PPS = 500000, 10000, 100000

# multipath hashes the 5-tuple, so that every megaflow has to match all of it.
FLOWS = ["in_port=1,udp,actions=output:2",
         "in_port=3,udp,actions=multipath(symmetric_l3l4+udp,0,modulo_n,1,0,NXM_NX_REG0[]),"
         "output:4"]
STEADY = ["flows=1000", f"rate={STEADY_PPS}", "n_desc=2048"]
STORM = ["flows=1", "order=fresh", "n_desc=2048"]
DRAIN_S = 0.3


def _drained(rig):
    rig.appctl("synth/rate", "stop")
    time.sleep(DRAIN_S)
    return rig.synth()["ports"]


def _loss_percent(bench, rig, way):
    case = synth.Case("", FLOWS, [STEADY, None, STORM + [f"rate={STORM_PPS}"], None])
    with synth.bridge(rig, synth.WAYS[way][0], case):
        synth.use(rig, way)
        rig.appctl("synth/rate", str(STEADY_PPS), "s1")
        time.sleep(synth.SETTLE_S)
        before = _drained(rig)
        synth.start(rig, case)
        time.sleep(bench.seconds)
        after = _drained(rig)
    came = sum(after["s1"][k] - before["s1"][k] for k in ("rx_packets", "rx_missed"))
    went = after["s2"]["tx_packets"] - before["s2"]["tx_packets"]
    setups = after["s4"]["tx_packets"] - before["s4"]["tx_packets"]
    return 100 * (came - went) / came, setups / bench.seconds / 1e3


def _setups(bench, rig, way):
    """Thousand set-ups per CPU-second and per second."""
    case = synth.Case("", FLOWS, [None, None, STORM + [f"rate={FLOOD_PPS}"], None])
    with synth.bridge(rig, synth.WAYS[way][0], case):
        synth.use(rig, way)
        synth.start(rig, case)
        time.sleep(synth.STEP_S)
        s = synth.window(bench, rig, f"set-ups {way}")
    return s.packets / sum(s.cpu.values()) / 1e3, s.packets / s.seconds / 1e3


def run(bench):
    with bench.rig() as rig:
        names = [w for w in synth.ways(bench, rig) if w != "netdev+smc"]
        loss, setups = {w: [] for w in names}, {w: [] for w in names}
        for i in range(bench.pairs):
            for way in names:
                bench.say(f"{NAME} {i + 1}/{bench.pairs}: {way}")
                loss[way].append(_loss_percent(bench, rig, way))
                setups[way].append(_setups(bench, rig, way))

    def column(samples, way, which):
        return [s[which] for s in samples.get(way, [])]

    def figure(title, unit, samples, goal):
        return Figure(NAME, title, unit, column(samples, "weft", 0), synth.PEER,
                      column(samples, "netdev", 0), goal,
                      note="" if "weft" in samples else synth.MISSING,
                      beside={"thousand set-ups a second": (column(samples, "weft", 1),
                                                            column(samples, "netdev", 1))})

    return [figure("established flows, 10 k new ones a second", "% lost", loss,
                   Goal(0, at_most=True)),
            figure("new flows, as many as it can", "thousand per CPU-second", setups,
                   Goal(1, on="ratio"))]
