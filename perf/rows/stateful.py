"""A stateful access list: connection tracking, then a second lookup.

Both ends of established TCP connections send at once, s1 as client.
"""
from report import Goal
from rows import synth

NAME = "stateful"
TITLE = "established TCP through conntrack, both directions, against OVS's own datapath"

FLOWS = [
    "table=0,priority=10,tcp,ct_state=-trk,actions=ct(table=1,zone=1)",
    "table=1,priority=20,in_port=1,tcp,tp_dst=80,ct_state=+trk+new,"
    "actions=ct(commit,zone=1),output:2",
    "table=1,priority=20,in_port=1,tcp,ct_state=+trk+est,actions=output:2",
    "table=1,priority=20,in_port=2,tcp,ct_state=+trk+est,actions=output:1",
]
# Clients 10.0.0.0 and up, from port 32768 on (never 0: invalid), to 10.128.0.1:80.
SHAPE = "shapes=0a0000000a80000180000050/0/00ffffff000000007fff0000"


def _case(label, connections, goals):
    traffic = ["proto=tcp", f"flows={connections}", SHAPE]
    return synth.Case(f"stateful ACL, {label}", FLOWS, [traffic, traffic + ["reverse=true"]], goals,
                      conntrack=True)


def run(bench):
    goal = {"netdev": Goal(2, on="ratio")}
    return synth.compare(bench, NAME, [
        _case("1 connection", 1, goal),
        _case("10 k connections", 10000, goal),
        _case("100 k connections", 100000, goal),
    ])
