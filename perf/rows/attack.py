"""A tuple-space attack beside an established load (CVE-2019-25076).

Three rules that look harmless let a datapath keep thousands of masks: for each
packet that they do not match it notes just the bits that tell it from them.
1,000 packets of 64 bytes a second, 0.7 Mb/s on the wire, leave the rules at
every combination of bits, among the packets of the same port.

Without it, no flow looks at the load's addresses, which Weft's cache makes use
of: the whole load is one entry.  Flows that match all of a 5-tuple, harmless
ones too, end that.  So the rate beside 16 such flows of another port is shown as
well: what is lost from there on is the attack's doing.
"""
import time

from report import Figure, Goal
from rows import synth, tuples

NAME = "attack"
TITLE = "tuple-space attack at 0.7 Mb/s beside 100 k flows"
PPS = 1000
COMBINATIONS = 33 * 17 * 17

FLOWS = ["priority=40,in_port=1,udp,tp_dst=80,actions=output:2",
         "priority=30,in_port=1,udp,nw_src=10.0.0.1,actions=output:2",
         "priority=20,in_port=1,udp,tp_src=12345,actions=output:2"]
# The load: 10.1.0.0/16, any port, to 10.128.0.1:80.
LOAD = ["flows=100000", "shapes=0a0100000a80000100000050/0/0000ffff00000000ffff0000",
        "attacked=0a0000010a80000130390050"]
WHOLE = [tuples.WHOLE]
CASE = synth.Case("100 k flows under attack",
                  FLOWS + tuples.access_list(WHOLE, 16, "in_port=3,udp", "output:2"),
                  [LOAD, None, ["flows=16", "rate=1000"] + tuples.options(WHOLE, 16)])
ALONE, WITH_WHOLE, ATTACKED = range(3)


def _measure(bench, rig, way, round_):
    """Mpps per CPU-second of the load alone, beside whole tuples, under attack."""
    samples = []
    with synth.bridge(rig, synth.WAYS[way][0], CASE):
        synth.use(rig, way)
        for step in (ALONE, WITH_WHOLE, ATTACKED):
            attack = PPS if step == ATTACKED else 0
            # The port starts afresh, stopped.
            rig.vsctl("set", "Interface", "s1", f"options:attack={attack}")
            synth.start(rig, CASE, () if step == WITH_WHOLE else ("s3",))
            if attack:
                bench.say(f"{NAME} {round_}: {way}, the attack builds up")
                time.sleep(COMBINATIONS / PPS)
            synth.settle(rig, CASE)
            samples.append(synth.window(bench, rig, f"attack {step} {way}").mpps_per_cpu)
    return samples


def run(bench):
    with bench.rig() as rig:
        names = synth.ways(bench, rig)
        samples = {w: [] for w in names}
        for i in range(bench.pairs):
            for way in names:
                bench.say(f"{NAME} {i + 1}/{bench.pairs}: {way}")
                samples[way].append(_measure(bench, rig, way, f"{i + 1}/{bench.pairs}"))
    ours = samples.pop("weft", [])

    def kept(pairs):
        return [100 * p[ATTACKED] / p[ALONE] for p in pairs]

    def rates(pairs, which):
        return [p[which] for p in pairs]

    return [Figure(NAME, f"{CASE.title}, against {synth.WAYS[way][2]}",
                   "% of the rate without", kept(ours), synth.PEER, kept(theirs), Goal(80),
                   note="" if ours else synth.MISSING,
                   beside={"Mpps per CPU-second, without": (rates(ours, ALONE),
                                                            rates(theirs, ALONE)),
                           "beside whole tuples": (rates(ours, WITH_WHOLE),
                                                   rates(theirs, WITH_WHOLE)),
                           "under attack": (rates(ours, ATTACKED), rates(theirs, ATTACKED))})
            for way, theirs in (samples or {"weft": []}).items()]
