"""Flow records into the collector, beside the distribution's.

    bench_collect (a router's stream, UDP on loopback) > weft-flowd | nfcapd | nfacctd

Each takes the same stream at a pace at which it loses nothing; what counts is
CPU time, user and system, of all of a collector's processes and threads, until
it has nothing left to do, because that holds on a machine that others use, too.
A run in which records got lost is not counted but repeated, at half the pace.

What each does with a record is not the same, and is said with each line.  The
nearest to weft-flowd's store is nfacctd's sqlite3 plugin with a row for each
record; its plugins write when sql_refresh_time comes, a process for each time.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import threading
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
         "stored": "each record in an SQLite store in memory, found by time, "
                   "and sums of it by 1, 5 and 60 minutes"}
QUIET_S, DONE_S, SAMPLE_S = 0.7, 90, 0.02
REFRESH_S = 10  # as often as weft-flowd makes rollups
NFACCTD_CONF = """daemonize: false
nfacctd_port: {port}
nfacctd_ip: 127.0.0.1
nfacctd_pipe_size: {buffer}
plugin_pipe_size: 67108864
plugin_buffer_size: 65536
"""
MEMORY_CONF = """plugins: memory[m]
aggregate[m]: src_host, dst_host, src_port, dst_port, proto
imt_path[m]: {dir}/nfacctd.pipe
imt_buckets: 65537
imt_mem_pools_number: 64
imt_mem_pools_size: 1048576
"""
# Inserts only, all of a refresh in one transaction, into a table of what is asked
# for and no more, without an index; numbers, not names, of protocols.  With
# sql_multi_values it loses rows (64 KiB, 1 MiB) or is no faster (16 MiB).
SQLITE_CONF = """plugins: sqlite3[s]
aggregate[s]: {aggregate}
sql_db[s]: {dir}/nfacctd.db
sql_table[s]: acct
sql_optimize_clauses[s]: true
sql_dont_try_update[s]: true
sql_num_protos[s]: true
sql_cache_entries[s]: 131071
sql_refresh_time[s]: {refresh}
{more}"""
TUPLE = "src_host, dst_host, src_port, dst_port, proto"
TUPLE_COLUMNS = "ip_src TEXT, ip_dst TEXT, src_port INT, dst_port INT, ip_proto INT"
COUNTERS = "packets INT, bytes BIGINT, flows INT, stamp_inserted DATETIME, stamp_updated DATETIME"


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
        except (FileNotFoundError, ProcessLookupError):
            pass  # ended meanwhile
    return total / 1e9


def family(pid):
    """A process and its descendants."""
    found = [pid]
    for one in found:
        try:
            with open(f"/proc/{one}/task/{one}/children", encoding="ascii") as f:
                found += [int(child) for child in f.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


class Meter(threading.Thread):
    """Adds up the CPU time of a process and its descendants.  While it runs, also of
    those that end: what one had when it was last looked at, SAMPLE_S before its end.
    Looking costs them a little: all are looked at alike."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid = pid
        self.lock = threading.Lock()
        self.seen = {}  # guarded by the lock
        self.done = threading.Event()

    def look(self):
        with self.lock:
            for pid in family(self.pid):
                self.seen[pid] = max(self.seen.get(pid, 0), cpu_seconds([pid]))
            return sum(self.seen.values())

    def run(self):
        while not self.done.wait(SAMPLE_S):
            self.look()


def until_idle(meter, rest_s):
    """Returns when a collector has worked off what it has: does nothing for that long."""
    end = time.monotonic() + DONE_S
    before, quiet = meter.look(), 0
    while time.monotonic() < end:
        time.sleep(QUIET_S)
        now = meter.look()
        quiet = quiet + QUIET_S if now - before < 0.02 * QUIET_S else 0
        if quiet >= rest_s:
            return
        before = now
    raise BenchError("a collector does not come to rest")


class Weft:
    pace, missing = 200_000, 0

    def __init__(self, programs, *sink, rest_s=2 * QUIET_S):
        self.programs = programs
        self.sink = sink
        self.rest_s = rest_s

    def argv(self, place):
        return ([f"{self.programs}/weft-flowd", f"--listen=udp:{PORT}:127.0.0.1", "--max-records=0"] +
                [a.format(dir=place.dir) for a in self.sink])

    @staticmethod
    def count(process, _place):
        process.stop(timeout=DONE_S)
        totals = json.loads(process.tail().strip().split("weft-flowd: ")[-1])
        return totals["records"]


class Nfcapd:
    pace, missing, rest_s = 200_000, 0, 2 * QUIET_S
    does = "writes records to files in memory, one after the other"

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
    rest_s = 2 * QUIET_S
    does = "adds up by 5-tuple in memory, and stores nothing"
    conf = MEMORY_CONF

    def argv(self, place):
        with open(f"{place.dir}/nfacctd.conf", "w", encoding="ascii") as f:
            f.write((NFACCTD_CONF + self.conf).format(port=PORT, buffer=BUFFER, dir=place.dir))
        return ["nfacctd", "-f", f"{place.dir}/nfacctd.conf"]

    @staticmethod
    def packets(place):
        text = command(["pmacct", "-p", f"{place.dir}/nfacctd.pipe", "-s", "-O", "json"])
        return sum(json.loads(line)["packets"] for line in text.splitlines()
                   if line.startswith("{"))

    def count(self, process, place):
        """It counts packets; the stream's flows have 1 to 10, the same again and again."""
        packets = self.packets(place)
        for pid in family(process.pid)[::-1]:  # it ends on its own at the next packet only
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return round(packets / 5.5)


class NfacctdSqlite(Nfacctd):
    rest_s = REFRESH_S + 2

    def __init__(self, does, aggregate, columns, more=""):
        self.does = does
        self.columns = columns
        self.conf = SQLITE_CONF.format(aggregate=aggregate, refresh=REFRESH_S, more=more,
                                       dir="{dir}")

    def argv(self, place):
        with contextlib.closing(sqlite3.connect(f"{place.dir}/nfacctd.db")) as db:
            db.execute(f"CREATE TABLE acct ({self.columns}, {COUNTERS})")
        return super().argv(place)

    @staticmethod
    def packets(place):
        with contextlib.closing(sqlite3.connect(f"{place.dir}/nfacctd.db")) as db:
            return db.execute("SELECT TOTAL(packets) FROM acct").fetchone()[0]


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
    meter = Meter(process.pid)
    try:
        end = time.monotonic() + 20
        while not bound(process.pid):
            process.check()
            if time.monotonic() > end:
                process.fail("does not listen")
            time.sleep(0.05)
        time.sleep(0.2)
        before = meter.look()
        meter.start()
        command([f"{PERF_BIN}/bench_collect", str(PORT), protocol, str(records), str(pace),
             str(FLOWS)], netns=place.netns, timeout=300)
        until_idle(meter, collector.rest_s)
        spent = meter.look() - before
        return spent, collector.count(process, place)
    finally:
        meter.done.set()
        process.stop()
        for name in os.listdir(place.dir):
            if name.startswith(("flows.db", "nfacctd.db")) or name.endswith(".log"):
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
        ("10", "stored"): Weft(bench.programs, "--store={dir}/flows.db", rest_s=REFRESH_S + 2),
        ("10", "nfacctd's rows in SQLite"): NfacctdSqlite(
            "writes each record as a row to an SQLite file in memory, without an index",
            f"{TUPLE}, src_mac, dst_mac, in_iface, out_iface, tos, tcpflags, flows, "
            "timestamp_start, timestamp_end",
            f"{TUPLE_COLUMNS}, mac_src TEXT, mac_dst TEXT, iface_in INT, iface_out INT, tos INT, "
            "tcp_flags INT, timestamp_start DATETIME, timestamp_start_residual INT, "
            "timestamp_end DATETIME, timestamp_end_residual INT"),
        ("10", "nfacctd's sums in SQLite"): NfacctdSqlite(
            f"writes sums by 5-tuple and {REFRESH_S} s to an SQLite file in memory, no records",
            f"{TUPLE}, flows", TUPLE_COLUMNS,
            f"sql_history[s]: {REFRESH_S}s\nnfacctd_time_new: true\n"),
        ("10", "nfacctd"): Nfacctd(),
    }
    rates = {key: [] for key in runs}
    for i in range(bench.pairs):
        for (protocol, what), collector in runs.items():
            bench.say(f"collect: {NAMES[protocol]}, {what}, turn {i + 1} of {bench.pairs}")
            rates[protocol, what].append(rate(place, collector, protocol))
    return [Figure(NAME, f"{NAMES[protocol]}, {what}, against {peer}", "M records/CPU-s",
                   rates[protocol, what], peer, rates[protocol, peer], Goal(2, "ratio"),
                   f"{NOTES[what]}; {peer.split(chr(39))[0]} {runs[protocol, peer].does}")
            for protocol, what, peer in (("9", "decoded", "nfcapd"), ("10", "decoded", "nfcapd"),
                                         ("10", "decoded", "nfacctd"),
                                         ("10", "stored", "nfacctd's rows in SQLite"),
                                         ("10", "stored", "nfacctd's sums in SQLite"),
                                         ("10", "stored", "nfacctd"),
                                         ("10", "stored", "nfcapd"))]


def run(bench):
    missing = [p for p in ("nfcapd", "nfdump", "nfacctd", "pmacct") if not shutil.which(p)]
    if missing:
        raise BenchError(f"not installed: {', '.join(missing)} (packages nfdump, pmacct)")
    with contextlib.ExitStack() as stack:
        return measure(bench, Place(stack))
