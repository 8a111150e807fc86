"""VLAN tags pushed and popped."""
from report import Goal
from rows import synth

NAME = "vlan"
TITLE = "VLAN push and pop, 64 B, against OVS's own datapath"

PUSH = ["in_port=1,actions=push_vlan:0x8100,set_field:4196->vlan_vid,output:2"]
POP = ["in_port=1,dl_vlan=100,udp,actions=pop_vlan,output:2"]


def run(bench):
    def ratio(limit):
        return {"netdev": Goal(limit, on="ratio")}
    tagged = ["vlan=100"]
    return synth.compare(bench, NAME, [
        synth.Case("VLAN push, 1 flow", PUSH, [["flows=1"], None], ratio(1.5)),
        synth.Case("VLAN push, 100 k flows", PUSH, [["flows=100000"], None], ratio(1.5)),
        synth.Case("VLAN pop, 1 flow", POP, [["flows=1"] + tagged, None], {}),
        synth.Case("VLAN pop, 100 k flows", POP, [["flows=100000"] + tagged, None], ratio(2)),
    ])
