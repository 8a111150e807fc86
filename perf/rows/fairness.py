"""Is every vif served alike, and what does a quiet one notice of busy ones?

    16 guests blast at 16 others           Jain's index over what they got and
                                           over the time of each pair's queue threads
    a guest pings another, 1,000 times a   the quiet pair's round trips, beside
    second; 0, 1, 8, 31 hogs blast         hogs that fill the switch's core

The switch has one core and the guests have the other, where the quiet pair goes
first (a real-time class): what is measured is the switch.  The first part is
measured once more with everything wherever the kernel puts it.
"""
import contextlib
import json
import os
import re
import time

from report import Figure, Goal
from rig import BRIDGE, BenchError, mac_of
from rows import stream

NAME = "fairness"
TITLE = "32 busy vifs served alike; a quiet pair beside 1, 8, 31 hogs"
PEER = "OVS-DPDK's own datapath, its polling thread on the switch's core"
STREAMS = 16
SIZE = 1514
HOGS = (0, 1, 8, 31)
TURN_PACKETS = 128  # other_config:weft-turn-packets
RATE = 1000
DATAPATHS = ("weft", "netdev")


def jain(shares):
    """1 when all are alike, 1/n when one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(x * x for x in shares))


def _use(rig, datapath):
    if datapath != "netdev" and not rig.has_datapath(datapath):
        raise BenchError(f"the switch has no datapath {datapath}")
    rig.vsctl("set", "Bridge", BRIDGE, f"datapath_type={datapath}")


def _hog_times(rig, domids):
    """CPU nanoseconds of each vif's queue threads so far."""
    spent = dict.fromkeys(domids, 0)
    for tid in os.listdir(f"/proc/{rig.vswitchd.pid}/task"):
        base = f"/proc/{rig.vswitchd.pid}/task/{tid}/"
        with contextlib.suppress(FileNotFoundError):
            with open(base + "comm", encoding="utf-8") as f:
                name = f.read().strip()
            with open(base + "schedstat", encoding="ascii") as f:
                ns = int(f.read().split()[0])
            for d in domids:
                if name.startswith(f"vif{d}."):
                    spent[d] += ns
    return spent


SWITCH_CORE = {min(1, os.cpu_count() - 1)}
GUESTS_CORE = {0}


def _place(pid, cores, first=False):
    for tid in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(tid), cores)
            if first:
                os.sched_setscheduler(int(tid), os.SCHED_FIFO, os.sched_param(1))


# --- many against many ---------------------------------------------------------


def _place_all(rig, guests, placed):
    anywhere = set(range(os.cpu_count()))
    _place(rig.vswitchd.pid, SWITCH_CORE if placed else anywhere)
    for g in guests:
        _place(g.pid, GUESTS_CORE if placed else anywhere)


def _start(bench, rig, stack):
    """Returns the receivers' OpenFlow port numbers, all guests, and the domain ids of each
    receiver and its sender."""
    bench.say(f"{NAME}: {2 * STREAMS} guests connect")
    sinks = [rig.start_guest(stack, "sink") for _ in range(STREAMS)]
    for g in sinks:
        g.wait_ready(timeout=60)
    ports = [rig.port_number(f"vif{g.domid}.0") for g in sinks]
    hogs = [rig.start_guest(stack, "blast", "--size", SIZE, "--dst-mac", mac_of(g.domid))
            for g in sinks]
    for g in hogs:
        g.wait_ready(timeout=60)
    return ports, sinks + hogs, [(a.domid, b.domid) for a, b in zip(sinks, hogs)]


def _shares(bench, rig, ports, pairs):
    """Packets a second at each receiver, in millions; CPU time of each pair's queues: who of
    the two delivers depends on who is at the ring first."""
    domids = [d for pair in pairs for d in pair]
    before, spent, t0 = rig.port_counters(), _hog_times(rig, domids), time.monotonic()
    time.sleep(bench.seconds)
    after, spent2, t1 = rig.port_counters(), _hog_times(rig, domids), time.monotonic()
    rig.vswitchd.check()
    shares = [(after[p][0] - before[p][0]) / (t1 - t0) / 1e6 for p in ports]
    if not any(shares):
        raise BenchError(f"nothing arrives; the switch says:\n{rig.vswitchd.tail()}")
    return shares, [sum(spent2[d] - spent[d] for d in pair) for pair in pairs]


def _many_once(bench, rig, ports, pairs):
    shares, spent = _shares(bench, rig, ports, pairs)
    return {"octets": jain(shares), "cycles": jain(spent), "all": sum(shares),
            "least": min(shares) / (sum(shares) / len(shares))}


def _many(bench):
    got = {True: [], False: []}
    with bench.rig() as rig, contextlib.ExitStack() as stack:
        ports, guests, pairs = _start(bench, rig, stack)
        for i in range(bench.pairs):
            for placed, samples in got.items():
                bench.say(f"{NAME} {i + 1}/{bench.pairs}: {'placed' if placed else 'anywhere'}")
                _place_all(rig, guests, placed)
                time.sleep(2 * stream.WARM_UP_S)
                samples.append(_many_once(bench, rig, ports, pairs))
    figures = []
    for placed, samples in got.items():
        what = f"{STREAMS} x 1,514 B" + ("" if placed else ", threads anywhere")
        goal = Goal(0.99) if placed else None

        def column(key, samples=samples):
            return [s[key] for s in samples]

        figures += [
            Figure(NAME, f"Jain's index of bytes, {what}", "", column("octets"), goal=goal,
                   digits=5),
            Figure(NAME, f"Jain's index of cycles, {what}", "", column("cycles"), goal=goal,
                   digits=5),
            Figure(NAME, f"the least served, of a fair share, {what}", "x", column("least")),
            Figure(NAME, f"all together, {what}", "Mpps", column("all")),
        ]
    return figures


# --- one quiet pair ----------------------------------------------------------------


def _guest(rig, stack, mode, *args, first=False):
    g = rig.start_guest(stack, mode, *args)
    g.wait_ready(timeout=60)
    _place(g.pid, GUESTS_CORE, first)
    return g


def _round_trips(rig, stack, seconds, echo):
    g = _guest(rig, stack, "blast", "--ping", "--rate", RATE, "--seconds", f"{seconds:g}",
               "--dst-mac", mac_of(echo.domid), "--json", first=True)
    g.popen.wait(seconds + 30)
    with open(g.log, encoding="utf-8") as f:
        text = f.read()
    found = json.loads(text[text.index("{"):])
    return next(v for v in (found, *(x for x in found.values() if isinstance(x, dict)))
                if "p99_us" in v)


def _received(rig):
    """{OpenFlow port number: packets that came in}."""
    text = rig.ofctl("dump-ports", rig.bridge_socket(BRIDGE))
    return {int(p): int(n) for p, n in re.findall(r"port\s+(\d+): rx pkts=(\d+)", text)}


def _quiet(bench, datapath, n):
    """p50 and p99 of the quiet pair's round trips, us; Jain's indices of the hogs;
    their packets a second."""
    with bench.rig() as rig, contextlib.ExitStack() as stack:
        _use(rig, datapath)
        _place(rig.vswitchd.pid, SWITCH_CORE)
        echo = _guest(rig, stack, "echo", first=True)
        hogs = []
        if n:
            sink = _guest(rig, stack, "sink")
            hogs = [_guest(rig, stack, "blast", "--dst-mac", mac_of(sink.domid)).domid
                    for _ in range(n)]
            _place(rig.vswitchd.pid, SWITCH_CORE)
            time.sleep(2 * stream.WARM_UP_S)
        numbers = rig.port_numbers()
        before, spent, t0 = _received(rig), _hog_times(rig, hogs), time.monotonic()
        with stream.profile(bench, rig, f"fairness {n} {datapath}"):
            trips = _round_trips(rig, stack, bench.seconds, echo)
        after, spent2, t1 = _received(rig), _hog_times(rig, hogs), time.monotonic()
        rig.vswitchd.check()
    ports = [numbers[f"vif{d}.0"] for d in hogs]
    taken = [after[p] - before[p] for p in ports]
    return {"p50": trips["p50_us"], "p99": trips["p99_us"],
            "octets": jain(taken) if taken else 1,
            "cycles": jain([spent2[d] - spent[d] for d in hogs]) if hogs else 1,
            "pps": sum(taken) / (t1 - t0)}


def _of_allowed(idle, loaded, hogs):
    """p99 as a part of: p99 without hogs, and twice (there and back) a turn of each."""
    return [s["p99"] / (i["p99"] + 2 * hogs * TURN_PACKETS * 1e6 / (s["pps"] or 1))
            for i, s in zip(idle, loaded)]


def _pairs(bench):
    got = {(d, h): [] for d in DATAPATHS for h in HOGS}
    for i in range(bench.pairs):
        for hogs in HOGS:
            for d in DATAPATHS:
                bench.say(f"{NAME} {i + 1}/{bench.pairs}: {hogs} hogs, {d}")
                got[d, hogs].append(_quiet(bench, d, hogs))

    def column(datapath, hogs, key):
        return [s[key] for s in got[datapath, hogs]]

    figures = []
    for hogs in HOGS:
        figures.append(Figure(
            NAME, f"quiet pair, {hogs} hogs: round trip, p99", "us", column("weft", hogs, "p99"),
            PEER, column("netdev", hogs, "p99"),
            beside={"p50, us": (column("weft", hogs, "p50"), column("netdev", hogs, "p50"))}))
        if hogs:
            figures.append(Figure(
                NAME, f"quiet pair, {hogs} hogs: p99, of idle and turns", "x",
                _of_allowed(got["weft", 0], got["weft", hogs], hogs), PEER,
                _of_allowed(got["netdev", 0], got["netdev", hogs], hogs), Goal(1, at_most=True)))
        if hogs > 1:
            figures += [
                Figure(NAME, f"{hogs} hogs: Jain's index of bytes taken", "",
                       column("weft", hogs, "octets"), PEER, column("netdev", hogs, "octets"),
                       Goal(0.99), digits=5),
                Figure(NAME, f"{hogs} hogs: Jain's index of cycles", "",
                       column("weft", hogs, "cycles"), PEER, column("netdev", hogs, "cycles"),
                       Goal(0.99), digits=5),
            ]
    return figures


def run(bench):
    return _many(bench) + _pairs(bench)
