"""Flow records into the collector, beside the distribution's.

    bench_collect (a router's stream, UDP on loopback) > weft-flowd | nfcapd | nfacctd

Each takes the same stream at a pace at which it loses nothing; what counts is
CPU time, user and system, of all of a collector's processes and threads,
because that holds on a machine that others use, too.  A run in which records
got lost is not counted but repeated, at half the pace.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import time

from report import Figure, Goal
from rig import MEMORY, PERF_BIN, PREFIX, BenchError, Process, Rig
from rig import run as command

NAME = "collect"
TITLE = "flow records per CPU-second, weft-flowd against nfcapd and nfacctd"

PORT = 2055
RECORDS, FLOWS = 200_000, 10_000
BUFFER = 32 << 20
NAMES = {"9": "NetFlow v9", "10": "IPFIX"}
NOTES = {"decoded": "decoded and forgotten",
         "stored": "in an SQLite store in memory, with rollups and indexes"}
QUIET_S, QUIET_TIMES, DONE_S = 0.7, 2, 60  # a store commits, and adds up, in its own time
NFACCTD_CONF = """daemonize: false
nfacctd_port: {port}
nfacctd_ip: 127.0.0.1
nfacctd_pipe_size: {buffer}
plugins: memory[m]
aggregate[m]: src_host, dst_host, src_port, dst_port, proto
imt_path[m]: {dir}/nfacctd.pipe
imt_buckets: 65537
imt_mem_pools_number: 64
imt_mem_pools_size: 1048576
plugin_pipe_size: 67108864
plugin_buffer_size: 65536
"""


class Place:
    """Where one row's processes live: a namespace and a directory in memory."""

    def __init__(self, stack):
        self.netns = f"{PREFIX}{os.getpid()}-collect"
        self.dir = f"{MEMORY}/{self.netns}"
        os.mkdir(self.dir)
        stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
        Rig.make_netns(stack, self.netns)


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
                    total += int(f.read().split()[0])
        except FileNotFoundError:
            pass  # ended meanwhile
    return total / 1e9


def family(pid):
    """A process and its descendants."""
    found = [pid]
    for one in found:
        try:
            with open(f"/proc/{one}/task/{one}/children", encoding="ascii") as f:
                found += [int(child) for child in f.read().split()]
        except FileNotFoundError:
            pass
    return found


def until_idle(pid):
    """Returns when a collector has worked off what it has."""
    end = time.monotonic() + DONE_S
    before, quiet = cpu_seconds(family(pid)), 0
    while time.monotonic() < end:
        time.sleep(QUIET_S)
        now = cpu_seconds(family(pid))
        quiet = quiet + 1 if now - before < 0.02 * QUIET_S else 0
        if quiet == QUIET_TIMES:
            return
        before = now
    raise BenchError("a collector does not come to rest")


class Weft:
    pace, missing = 200_000, 0

    def __init__(self, programs, *sink):
        self.programs = programs
        self.sink = sink

    def argv(self, place):
        return ([f"{self.programs}/weft-flowd", f"--listen=udp:{PORT}:127.0.0.1", "--max-records=0"] +
                [a.format(dir=place.dir) for a in self.sink])

    @staticmethod
    def count(process, _place):
        process.stop(timeout=DONE_S)
        totals = json.loads(process.tail().strip().split("weft-flowd: ")[-1])
        return totals["records"]


class Nfcapd:
    pace, missing = 200_000, 0
    does = "writes files, in memory"

    @staticmethod
    def argv(place):
        os.makedirs(f"{place.dir}/nf", exist_ok=True)
        return ["nfcapd", "-w", f"{place.dir}/nf", "-p", str(PORT), "-b", "127.0.0.1", "-B",
                str(BUFFER), "-t", "3600"]

    @staticmethod
    def count(process, place):
        process.stop()
        text = "".join(command(["nfdump", "-r", f"{place.dir}/nf/{f}", "-I"])
                       for f in os.listdir(f"{place.dir}/nf") if f.startswith("nfcapd.2"))
        shutil.rmtree(f"{place.dir}/nf")
        return sum(int(n) for n in re.findall(r"^Flows:\s*(\d+)", text, re.M))


class Nfacctd:
    pace, missing = 100_000, 500  # what is in its last buffer is not in its table yet
    does = "adds up by 5-tuple in memory"

    @staticmethod
    def argv(place):
        with open(f"{place.dir}/nfacctd.conf", "w", encoding="ascii") as f:
            f.write(NFACCTD_CONF.format(port=PORT, buffer=BUFFER, dir=place.dir))
        return ["nfacctd", "-f", f"{place.dir}/nfacctd.conf"]

    @staticmethod
    def count(process, place):
        """It counts packets; the stream's flows have 1 to 10, the same again and again."""
        text = command(["pmacct", "-p", f"{place.dir}/nfacctd.pipe", "-s", "-O", "json"])
        packets = sum(json.loads(line)["packets"] for line in text.splitlines()
                      if line.startswith("{"))
        for pid in family(process.pid)[::-1]:  # it ends on its own at the next packet only
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return round(packets / 5.5)


def bound(pid):
    """Whether the collector listens."""
    try:
        with open(f"/proc/{pid}/net/udp", encoding="ascii") as f:
            return f":{PORT:04X} " in f.read()
    except FileNotFoundError:
        return False


def once(place, collector, protocol, records, pace):
    """(CPU seconds, records that arrived)."""
    process = Process(place, type(collector).__name__.lower(), collector.argv(place),
                      netns=place.netns)
    try:
        end = time.monotonic() + 20
        while not bound(process.pid):
            process.check()
            if time.monotonic() > end:
                process.fail("does not listen")
            time.sleep(0.05)
        time.sleep(0.2)
        before = cpu_seconds(family(process.pid))
        command([f"{PERF_BIN}/bench_collect", str(PORT), protocol, str(records), str(pace),
             str(FLOWS)], netns=place.netns, timeout=300)
        until_idle(process.pid)
        spent = cpu_seconds(family(process.pid)) - before
        return spent, collector.count(process, place)
    finally:
        process.stop()
        for name in os.listdir(place.dir):
            if name.startswith("flows.db") or name.endswith(".log"):
                os.remove(f"{place.dir}/{name}")


def rate(place, collector, protocol):
    """Million records per CPU-second, none lost."""
    pace = collector.pace
    while pace >= collector.pace / 16:
        spent, arrived = once(place, collector, protocol, RECORDS, int(pace))
        if RECORDS - collector.missing <= arrived <= RECORDS:
            return RECORDS / spent / 1e6
        pace /= 2
    raise BenchError(f"{type(collector).__name__} loses records at {pace * 2:.0f} a second")


def measure(bench, place):
    runs = {  # in the order of a turn
        ("9", "decoded"): Weft(bench.programs, "--discard"),
        ("9", "nfcapd"): Nfcapd(),
        ("10", "decoded"): Weft(bench.programs, "--discard"),
        ("10", "nfcapd"): Nfcapd(),
        ("10", "stored"): Weft(bench.programs, "--store={dir}/flows.db"),
        ("10", "nfacctd"): Nfacctd(),
    }
    rates = {key: [] for key in runs}
    for i in range(bench.pairs):
        for (protocol, what), collector in runs.items():
            bench.say(f"collect: {NAMES[protocol]}, {what}, turn {i + 1} of {bench.pairs}")
            rates[protocol, what].append(rate(place, collector, protocol))
    return [Figure(NAME, f"{NAMES[protocol]}, {what}, against {peer}", "M records/CPU-s",
                   rates[protocol, what], peer, rates[protocol, peer], Goal(2, "ratio"),
                   f"{NOTES[what]}; {peer} {runs[protocol, peer].does}")
            for protocol, what, peer in (("9", "decoded", "nfcapd"), ("10", "decoded", "nfcapd"),
                                         ("10", "decoded", "nfacctd"), ("10", "stored", "nfcapd"),
                                         ("10", "stored", "nfacctd"))]


def run(bench):
    missing = [p for p in ("nfcapd", "nfdump", "nfacctd", "pmacct") if not shutil.which(p)]
    if missing:
        raise BenchError(f"not installed: {', '.join(missing)} (packages nfdump, pmacct)")
    with contextlib.ExitStack() as stack:
        return measure(bench, Place(stack))
