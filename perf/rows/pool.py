"""The controller and a pool of many hosts: what a start and changes cost.

Real weft-controllerd, real ovsdb-servers (one for the pool, one for each host),
and switches that keep the flows they are sent and forward nothing.  All on this
machine: what it takes to the last host's confirmation includes the switches'
and the databases' own work.
"""
import os
import re
import time

from pool_model import PoolModel
from pool_rig import WeftPool, cpu_seconds, memory_mib, until
from report import Figure, Goal
from rig import PERF_BIN, BenchError, run as run_command

NAME = "pool"
TITLE = "a pool of up to 64 hosts x 1,000 vifs: start, changes, hosts that come back"

SIZES = os.environ.get("POOL_SIZES", "8x125,16x250,32x500,64x1000")
RULES = int(os.environ.get("POOL_RULES", "10000"))
CHANGES = int(os.environ.get("POOL_CHANGES", "200"))
GLOBAL_CHANGES = 10
MOVES = 20
REJOINS = 5
REST_S = 5


def percentile(values, p):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))]


def compute(model):
    """CPU seconds of the model and of its flows, from bench_compile."""
    program = f"{PERF_BIN}/bench_compile"
    if not os.access(program, os.X_OK):
        raise BenchError("build/plain/perf/bench_compile is not built; run make bench")
    text = run_command([program, str(model.n_hosts), str(model.vifs_per_host),
                        str(model.n_rules)], timeout=300)
    found = re.search(r"model ([\d.]+) s.*flows ([\d.]+) s", text)
    if not found:
        raise BenchError(f"bench_compile printed: {text}")
    return float(found.group(1)), float(found.group(2))


class Changes:
    """Several changes of one kind: seconds to the last confirmation, to the last
    host's row, and of the controller's CPU."""

    def __init__(self, pool):
        self._pool = pool
        self.confirmed, self.told, self.cpu = [], [], []
        self._before = self._sums()

    def _sums(self):
        return self._pool.switch_sum("mods"), self._pool.switch_sum("bytes")

    def add(self, change):
        before = cpu_seconds(self._pool.controller.pid)
        confirmed, told = change()
        self.cpu.append(cpu_seconds(self._pool.controller.pid) - before)
        self.confirmed.append(confirmed)
        self.told.append(told)

    def end(self):
        """Notes flow_mods and bytes of one; returns self."""
        self.mods, self.octets = ((after - before) / len(self.cpu)
                                  for after, before in zip(self._sums(), self._before))
        return self


def change_rules(bench, pool, scope, n):
    rules = pool.model.rules_of(scope)
    changes = Changes(pool)
    for i in range(n):
        if not i % 20:
            bench.say(f"{NAME}: {pool.model.title()}: rules of scope {scope}: {i} of {n}")
        changes.add(lambda: pool.change_rule(rules[i * 37 % len(rules)]))
    return changes.end()


def move_vifs(bench, pool):
    bench.say(f"{NAME}: {pool.model.title()}: vifs move")
    pool.calm()
    changes = Changes(pool)
    model = pool.model
    # Of overlay networks: each host that has the network learns the new way.
    vifs = [v for v in model.vifs_on(0) if not model.is_vlan(model.net_of(v))]
    for i, vif in enumerate(vifs[::max(len(vifs) // MOVES, 1)][:MOVES]):
        changes.add(lambda: (pool.move(vif, 1, 5000 + i), 0))
    return changes.end()


def rejoin(pool, host, forgets):
    """A host's database and switch go and come back; (seconds from the switch's
    connection to the last confirmation or, if there is nothing to send, until it
    is known to have all; the controller's CPU seconds)."""
    before = cpu_seconds(pool.controller.pid)
    pool.host_servers[host].stop()
    pool.forget_host_db(host)
    pool.switches(f"{'forget' if forgets else 'drop'} {host}")
    gone = time.monotonic_ns()
    pool.host_servers[host] = pool.start_host_db(host)

    def back():
        text = pool.status(host)
        return (": connected, openflow ready" in text
                and pool.switches()[host]["connect_ns"] > gone
                and re.search(r"flows: (\d+) wanted, 0 in flight, 0 waiting", text)
                and "compared 0 s ago" in text)

    until(f"host {host} is back", back, every=0.005)
    now = time.monotonic_ns()
    s = pool.switches()[host]
    end = s["barrier_ns"] if forgets else now
    return (end - s["connect_ns"]) / 1e9, cpu_seconds(pool.controller.pid) - before


def sent(changes):
    return f"{changes.mods:,.0f} flow_mods and {changes.octets / 1e3:,.1f} kB a change"


def at_rest(pool):
    """CPU seconds of the controller in one second without changes."""
    before, start = cpu_seconds(pool.controller.pid), time.monotonic()
    time.sleep(REST_S)
    return (cpu_seconds(pool.controller.pid) - before) / (time.monotonic() - start)


def figures_of(model, goal, cold, changes):
    title = model.title()
    confirmed = [s * 1e3 for s in changes["network"].confirmed]
    told = [s * 1e3 for s in changes["network"].told]
    whole = [s * 1e3 for s in changes["global"].confirmed]
    out = [Figure(NAME, f"{title}: cold start, all hosts confirmed", "s", [cold["wall"]],
                  note=f"{cold['flows']:,} flows, {cold['bytes'] / 1e6:,.0f} MB sent"),
           Figure(NAME, f"{title}: cold start, controller's CPU time", "s", [cold["cpu"]]),
           Figure(NAME, f"{title}: cold start computed (bench_compile: model and flows)", "s",
                  [sum(cold["compute"])], goal=Goal(1, at_most=True) if goal else None,
                  note=f"model {cold['compute'][0]:.2f} s, flows {cold['compute'][1]:.2f} s"),
           Figure(NAME, f"{title}: controller at rest", "% of a core", [cold["rest"] * 100]),
           Figure(NAME, f"{title}: controller's memory", "MiB", [cold["memory"]]),
           Figure(NAME, f"{title}: a network's rule, last host confirmed, p50", "ms",
                  [percentile(confirmed, 50)],
                  note=sent(changes["network"])),
           Figure(NAME, f"{title}: a network's rule, last host confirmed, p99", "ms",
                  [percentile(confirmed, 99)], goal=Goal(100, at_most=True)),
           Figure(NAME, f"{title}: a network's rule, seen in the database by who waits, p99", "ms",
                  [percentile(told, 99)]),
           Figure(NAME, f"{title}: a network's rule, controller's CPU time", "ms",
                  [s * 1e3 for s in changes["network"].cpu]),
           Figure(NAME, f"{title}: a global rule, last host confirmed", "ms", whole,
                  note=sent(changes["global"])),
           Figure(NAME, f"{title}: a vif moved, last host confirmed", "ms",
                  [s * 1e3 for s in changes["move"].confirmed], note=sent(changes["move"])),
           Figure(NAME, f"{title}: a vif moved, controller's CPU time", "ms",
                  [s * 1e3 for s in changes["move"].cpu])]
    for forgets, what in ((False, "its flows kept"), (True, "with no flows")):
        times, cpu = zip(*changes[f"rejoin{forgets:d}"])
        out.append(Figure(NAME, f"{title}: a host comes back {what}, from connect to in step",
                          "ms", [s * 1e3 for s in times]))
        out.append(Figure(NAME, f"{title}: a host comes back {what}, controller's CPU time",
                          "ms", [s * 1e3 for s in cpu]))
    return out


def measure(bench, model, largest):
    bench.say(f"{NAME}: {model.title()}: computing")
    cold = {"compute": compute(model)}
    bench.say(f"{NAME}: {model.title()}: filling the databases")
    with WeftPool(bench.programs, model) as pool:
        bench.say(f"{NAME}: {model.title()}: cold start")
        cold["wall"], _ = pool.cold_start()
        cold["cpu"] = cpu_seconds(pool.controller.pid)
        cold["flows"], cold["bytes"] = pool.switch_sum("flows"), pool.switch_sum("bytes")
        cold["memory"] = memory_mib(pool.controller.pid)
        pool.calm()
        cold["rest"] = at_rest(pool)
        changes = {"network": change_rules(bench, pool, "network", CHANGES),
                   "global": change_rules(bench, pool, "global", GLOBAL_CHANGES),
                   "move": move_vifs(bench, pool)}
        for forgets in (False, True):
            bench.say(f"{NAME}: {model.title()}: hosts come back")
            changes[f"rejoin{forgets:d}"] = [rejoin(pool, i % model.n_hosts, forgets)
                                             for i in range(REJOINS)]
        return figures_of(model, largest, cold, changes)


def run(bench):
    sizes = [tuple(int(n) for n in size.split("x")) for size in SIZES.split(",")]
    figures = []
    for hosts, vifs in sizes:
        figures += measure(bench, PoolModel(hosts, vifs, RULES), (hosts, vifs) == (64, 1000))
    return figures
