"""Forwarding from one port to another: what a packet costs, by flows."""
from report import Goal
from rows import synth

NAME = "forward"
TITLE = "port to port, 64 B, against OVS's own datapath"

L4 = ["in_port=1,udp,actions=output:2"]


def _l4(label, flows, goals):
    return synth.Case(f"L4 match, {label}", L4, [[f"flows={flows}"], None], goals)


def _ratio(limit):
    return {"netdev": Goal(limit, on="ratio")}


def run(bench):
    both = {**_ratio(2), "netdev+smc": Goal(2, on="ratio")}
    return synth.compare(bench, NAME, [
        synth.Case("wildcard, 1 flow", ["in_port=1,actions=output:2"], [["flows=1"], None],
                   _ratio(1.5)),
        _l4("1 flow", 1, _ratio(1.5)),
        _l4("1 k flows", 1000, {}),
        _l4("10 k flows", 10000, {}),
        _l4("100 k flows", 100000, both),
        _l4("1 M flows", 1000000, {}),
    ])
