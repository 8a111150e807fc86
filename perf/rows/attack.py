"""A tuple-space attack beside an established load (CVE-2019-25076).

Three rules that look harmless let a datapath keep thousands of masks: for each
packet that they do not match it notes just the bits that tell it from them.
1,000 packets of 64 bytes a second, 0.7 Mb/s on the wire, leave the rules at
every combination of bits, among the packets of the same port.
"""
import time

from report import Figure, Goal
from rows import synth

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
CASE = synth.Case("100 k flows under attack", FLOWS, [LOAD, None])


def _measure(bench, rig, way, round_):
    """Mpps per CPU-second without and with the attack."""
    samples = []
    with synth.bridge(rig, synth.WAYS[way][0], CASE):
        synth.use(rig, way)
        for attack in (0, PPS):
            # The port starts afresh, stopped.
            rig.vsctl("set", "Interface", "s1", f"options:attack={attack}")
            synth.start(rig, CASE)
            if attack:
                bench.say(f"{NAME} {round_}: {way}, the attack builds up")
                time.sleep(COMBINATIONS / PPS)
            synth.settle(rig, CASE)
            samples.append(synth.window(bench, rig, f"attack {attack} {way}").mpps_per_cpu)
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
        return [100 * under / without for without, under in pairs]

    def rates(pairs, which):
        return [p[which] for p in pairs]

    return [Figure(NAME, f"{CASE.title}, against {synth.WAYS[way][2]}",
                   "% of the rate without", kept(ours), synth.PEER, kept(theirs), Goal(80),
                   note="" if ours else synth.MISSING,
                   beside={"Mpps per CPU-second, without": (rates(ours, 0), rates(theirs, 0)),
                           "under attack": (rates(ours, 1), rates(theirs, 1))})
            for way, theirs in (samples or {"weft": []}).items()]
