"""The controller beside OVN: the same pool, stated to each in its own terms, on the
same kind of switches and host databases.

Weft is weft-controllerd and the pool's database; OVN is the distribution's
ovn-northd, its two databases and one ovn-controller for each host (perf/pool_ovn.py).
Each pair starts both from nothing.  CPU time and memory are of all these
processes together, without the hosts' databases and the switches.
"""
import os
from statistics import median

from pool_model import PoolModel
from pool_ovn import OvnPool
from pool_rig import WeftPool
from report import Figure

NAME = "pool-ovn"
TITLE = "the same pool under weft-controllerd and under OVN"

SIZE = os.environ.get("POOL_OVN_SIZE", "4x64")
RULES = int(os.environ.get("POOL_OVN_RULES", "500"))
CHANGES, MOVES = 20, 5
PEER = "ovn-northd, ovn-controller"

UNITS = {"cold start, all hosts confirmed": "s",
         "cold start, CPU time": "s",
         "flows": "thousand",
         "memory": "MiB",
         "a network's rule, last host confirmed": "ms",
         "a network's rule, told to who waits": "ms",
         "a network's rule, CPU time": "ms",
         "a vif moved, last host confirmed": "ms"}


def measure(pool):
    """{what: value}, in the units above."""
    model = pool.model
    with pool:
        wall, cpu = pool.cold_start()
        pool.settle(1)
        got = {"cold start, all hosts confirmed": wall, "cold start, CPU time": cpu,
               "flows": pool.switch_sum("flows") / 1e3, "memory": pool.memory()}
        rules = model.rules_of("network")
        cpu = pool.cpu()
        times = [pool.change_rule(rules[i * 37 % len(rules)]) for i in range(CHANGES)]
        got["a network's rule, CPU time"] = (pool.cpu() - cpu) / CHANGES * 1e3
        got["a network's rule, last host confirmed"] = median(t[0] for t in times) * 1e3
        got["a network's rule, told to who waits"] = median(t[1] for t in times) * 1e3
        pool.settle(1)
        got["a vif moved, last host confirmed"] = 1e3 * median(
            pool.move(model.vifs_on(0)[i * 3 % model.vifs_per_host], 1, 5000 + i)
            for i in range(MOVES))
    return got


def run(bench):
    hosts, vifs = (int(n) for n in SIZE.split("x"))
    model = PoolModel(hosts, vifs, RULES)
    ours, theirs = [], []
    for pair in range(bench.pairs):
        for system, into in ((WeftPool, ours), (OvnPool, theirs)):
            bench.say(f"{NAME}: {model.title()}, {RULES} rules: pair {pair + 1} of {bench.pairs}")
            into.append(measure(system(bench.programs, model)))
    return [Figure(NAME, f"{model.title()}, {RULES:,} rules: {what}", unit,
                   [got[what] for got in ours], peer=PEER,
                   peer_values=[got[what] for got in theirs])
            for what, unit in UNITS.items()]
