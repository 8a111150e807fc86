"""Access lists on 5-tuples: 1,000 rules of 10 mask shapes, and 64 shapes."""
from report import Goal
from rows import synth, tuples

NAME = "acl"
TITLE = "1,000 ACL rules and 64 mask shapes, 64 B, against OVS's own datapath"


def _goals(netdev, smc=None):
    goals = {"netdev": Goal(netdev, on="ratio")}
    return {**goals, "netdev+smc": Goal(smc, on="ratio")} if smc else goals


def _case(title, shapes, rules, traffic, goals):
    return synth.Case(title, tuples.access_list(shapes, rules, "in_port=1,udp", "output:2"),
                      [traffic + tuples.options(shapes, rules), None], goals)


def _bypassed(shapes, rules):
    """No 5-tuple comes twice.  Weft's cache keeps of a key the bits that some
    flow matches: the few packets of another port have flows that match all of
    them, or else many keys were one."""
    case = _case(f"{len(shapes)} masks, cache bypassed", shapes, rules,
                 ["flows=1000000", "order=fresh"], _goals(3))
    whole = [tuples.WHOLE]
    case.flows += tuples.access_list(whole, 16, "in_port=3,udp", "output:2")
    case.ports += [["flows=16", "rate=1000"] + tuples.options(whole, 16)]
    case.bypass = True
    return case


def run(bench):
    ten, many = tuples.TEN_SHAPES, tuples.SIXTY_FOUR_SHAPES
    return synth.compare(bench, NAME, [
        _case("1,000 ACLs, 1 k flows", ten, 100, ["flows=1000"], {}),
        _case("1,000 ACLs, 10 k flows", ten, 100, ["flows=10000"], {}),
        _case("1,000 ACLs, 100 k flows", ten, 100, ["flows=100000"], _goals(10, 2.8)),
        _case("64 masks, 100 k flows", many, 16, ["flows=100000"], _goals(10)),
        _bypassed(many, 16),
    ])
