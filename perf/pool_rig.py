"""A pool without guests: databases, light switches, and what programs them.

Each host is an ovsdb-server of its own and one of the switches of
bench_pool_peers; both listen on Unix sockets in DIR/HOST.  Everything that is
started ends with the rig.
"""
import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pool_model
from rig import MEMORY, PERF_BIN, PREFIX, ROOT, BenchError, Process, run as run_command

SHARE = f"{ROOT}/build/share"
BATCH = 4000  # operations in a transaction


def until(what, condition, timeout=120, every=0.01):
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise BenchError(f"{what}: not within {timeout} s")
        time.sleep(every)


class JsonRpc:
    """A client of ovsdb-server, or of a daemon's control socket."""

    def __init__(self, path, timeout=30):
        self._socket = socket.socket(socket.AF_UNIX)
        until(f"{path} answers", lambda: not self._socket.connect_ex(path), timeout)
        self._id = 0
        self._text = ""
        self._updates = []

    def close(self):
        self._socket.close()

    def _receive(self, timeout):
        decoder = json.JSONDecoder()
        end = time.monotonic() + timeout
        while True:
            self._text = self._text.lstrip()
            with contextlib.suppress(json.JSONDecodeError):
                message, at = decoder.raw_decode(self._text)
                self._text = self._text[at:]
                return message
            self._socket.settimeout(max(end - time.monotonic(), 0.001))
            try:
                data = self._socket.recv(1 << 20)
            except (TimeoutError, socket.timeout):
                return None
            if not data:
                raise BenchError("a server closed the connection")
            self._text += data.decode()

    def _send(self, message):
        self._socket.settimeout(None)
        self._socket.sendall(json.dumps(message).encode())

    def call(self, method, *params, timeout=300):
        self._id += 1
        self._send({"method": method, "params": list(params), "id": self._id})
        while True:
            message = self._receive(timeout)
            if message is None:
                raise BenchError(f"{method}: no answer within {timeout} s")
            if message.get("method") == "echo":
                self._send({"result": message["params"], "error": None, "id": message["id"]})
            elif message.get("method") == "update":
                self._updates.append(message["params"][1])
            elif message.get("id") == self._id:
                if message["error"] is not None:
                    raise BenchError(f"{method}: {message['error']}")
                return message["result"]

    def transact(self, database, *ops):
        results = self.call("transact", database, *ops)
        for r in results:
            if r and "error" in r:
                raise BenchError(f"{database}: {r['error']}: {r.get('details')}")
        return results

    def fill(self, database, ops):
        batch = []
        for op in ops:
            batch.append(op)
            if len(batch) == BATCH:
                self.transact(database, *batch)
                batch = []
        if batch:
            self.transact(database, *batch)

    def updates(self, timeout):
        """What monitors have reported, at least one if within 'timeout' seconds."""
        while not self._updates:
            message = self._receive(timeout)
            if message is None:
                break
            if message.get("method") == "update":
                self._updates.append(message["params"][1])
            elif message.get("method") == "echo":
                self._send({"result": message["params"], "error": None, "id": message["id"]})
        got, self._updates = self._updates, []
        return got


def cpu_seconds(pid):
    """Of all its threads so far, those that ended left out."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
                total += int(f.read().split()[0])
    return total / 1e9


def memory_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) / 1024


class PoolRig(contextlib.ExitStack):
    """Databases and switches of one system, "weft" or "ovn", for a PoolModel."""

    QUIET_S = 0.15  # then a change is through

    def __init__(self, programs, model, system):
        super().__init__()
        self.programs, self.model, self.system = programs, model, system
        self.bridge = {"weft": pool_model.BRIDGE, "ovn": pool_model.INT_BRIDGE}[system]
        self.dir = None
        self.host_servers = []
        self._host_dbs = {}

    def __enter__(self):
        super().__enter__()
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def _start(self):
        self.dir = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=MEMORY)
        self.callback(shutil.rmtree, self.dir, ignore_errors=True)
        self.env = dict(os.environ, OVS_RUNDIR=self.dir, OVS_LOGDIR=self.dir, OVS_DBDIR=self.dir,
                        OVS_SYSCONFDIR=self.dir)
        empty = f"{self.dir}/empty.db"
        self.create_db(empty, f"{SHARE}/vswitch.ovsschema")
        for i in range(self.model.n_hosts):
            os.mkdir(f"{self.dir}/{i}")
            shutil.copy(empty, f"{self.dir}/{i}/conf.db")
            self.host_servers.append(self.start_host_db(i))
        for i in range(self.model.n_hosts):
            self.host_db(i).fill("Open_vSwitch", self.model.host_rows(i, self.system))
        self._start_switches()

    def create_db(self, path, schema):
        run_command([f"{self.programs}/ovsdb-tool", "create", path, schema])

    def spawn(self, name, argv, env=None):
        p = Process(self, name, argv, env=env or self.env)
        self.callback(p.stop)
        return p

    def serve(self, name, file, sock):
        return self.spawn(name, [f"{self.programs}/ovsdb-server", file, f"--remote=punix:{sock}",
                                 f"--unixctl={sock}.ctl", "-vconsole:warn", "-vsyslog:off"])

    def start_host_db(self, i):
        return self.serve(f"db{i}", f"{self.dir}/{i}/conf.db", f"{self.dir}/{i}/db.sock")

    def host_db(self, i):
        if i not in self._host_dbs:
            self._host_dbs[i] = JsonRpc(f"{self.dir}/{i}/db.sock")
        return self._host_dbs[i]

    def forget_host_db(self, i):
        db = self._host_dbs.pop(i, None)
        if db:
            db.close()

    # --- switches -------------------------------------------------------------------

    def _start_switches(self):
        program = f"{PERF_BIN}/bench_pool_peers"
        if not os.access(program, os.X_OK):
            raise BenchError("build/plain/perf/bench_pool_peers is not built; run make bench")
        self._switches = subprocess.Popen(
            [program, self.dir, self.bridge, str(self.model.n_hosts)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, preexec_fn=_die_with_us)
        self.callback(self._stop_switches)
        if not self._switches.stdout.readline():
            raise BenchError("bench_pool_peers did not start")

    def _stop_switches(self):
        self._switches.kill()
        self._switches.wait()

    def switches(self, command="stats"):
        self._switches.stdin.write(command + "\n")
        self._switches.stdin.flush()
        line = self._switches.stdout.readline()
        if not line:
            raise BenchError("bench_pool_peers ended")
        return json.loads(line)

    def switch_sum(self, what):
        return sum(s[what] for s in self.switches())

    def last_confirmed(self):
        """When the last switch answered a barrier, in seconds of time.monotonic()."""
        return max(s["barrier_ns"] for s in self.switches()) / 1e9

    def settle(self, quiet=None):
        """Until no switch is told anything for 'quiet' seconds."""
        quiet = quiet or self.QUIET_S
        before, since = None, time.monotonic()
        while time.monotonic() - since < quiet:
            now = [(s["mods"], s["barrier_ns"]) for s in self.switches()]
            if now != before:
                before, since = now, time.monotonic()
            time.sleep(0.02)

    # --- ports ----------------------------------------------------------------------

    def move(self, vif, to, ofport):
        """A vif appears on another host, then goes from its own; seconds to the last
        switch's confirmation."""
        start = time.monotonic()
        self.plug(vif, to, ofport)
        self.unplug(vif, self.model.host_of(vif))
        until("a confirmation", lambda: self.last_confirmed() > start)
        self.settle()
        return self.last_confirmed() - start

    def plug(self, vif, host, ofport):
        ops = list(pool_model.port_rows(0, f"vif{vif}.0", ofport,
                                        self.model.interface_ids(vif), "", {}, {}))
        ops.append({"op": "mutate", "table": "Bridge", "where": [["name", "==", self.bridge]],
                    "mutations": [["ports", "insert", ["set", [["named-uuid", "p0"]]]]]})
        self.host_db(host).transact("Open_vSwitch", *ops)

    def unplug(self, vif, host):
        db = self.host_db(host)
        rows = db.transact("Open_vSwitch", {"op": "select", "table": "Port", "columns": ["_uuid"],
                                            "where": [["name", "==", f"vif{vif}.0"]]})[0]["rows"]
        db.transact("Open_vSwitch", {
            "op": "mutate", "table": "Bridge", "where": [["name", "==", self.bridge]],
            "mutations": [["ports", "delete", ["set", [rows[0]["_uuid"]]]]]})


def _die_with_us():
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class WeftPool(PoolRig):
    """With the pool's database and, after start(), a controller."""

    def __init__(self, programs, model):
        super().__init__(programs, model, "weft")
        self.controller = None
        self.generation = 1
        self.pool = None
        self._applied = {}
        self._salt = 0

    def _start(self):
        super()._start()
        self.create_db(f"{self.dir}/pool.db", f"{SHARE}/pool.ovsschema")
        self._server = self.serve("pool", f"{self.dir}/pool.db", f"{self.dir}/pool.sock")
        self.pool = JsonRpc(f"{self.dir}/pool.sock")
        self.pool.fill("Weft_Pool", self.model.weft_rows(self.dir))
        first = self.pool.call("monitor", "Weft_Pool", "hosts",
                               {"Host": {"columns": ["applied_generation"]}})
        self._note(first)

    def start(self):
        """A controller; returns when it was, by time.monotonic()."""
        at = time.monotonic()
        self.controller = self.spawn("controller", [
            f"{self.programs}/weft-controllerd", f"--db=unix:{self.dir}/pool.sock",
            f"--unixctl={self.dir}/controller.ctl", f"--rest=unix:{self.dir}/rest.sock",
            f"--audit-log={self.dir}/audit.log", "--audit-interval=0", "-vconsole:info",
            "-vsyslog:off"])
        return at

    def cold_start(self):
        """(wall seconds, CPU seconds of the controller and the pool's database)."""
        before = cpu_seconds(self._server.pid)
        start = self.start()
        end = self.wait_applied()
        return end - start, self.cpu() - before

    def cpu(self):
        return cpu_seconds(self.controller.pid) + cpu_seconds(self._server.pid)

    def memory(self):
        """MiB of the controller and the pool's database."""
        return memory_mib(self.controller.pid) + memory_mib(self._server.pid)

    def _note(self, update):
        for uuid, row in update.get("Host", {}).items():
            if "new" in row:
                self._applied[uuid] = row["new"]["applied_generation"]

    def wait_applied(self, timeout=180):
        """Until each host's row says that it has the present generation; when
        that was."""
        end = time.monotonic() + timeout
        while min(self._applied.values()) < self.generation:
            if time.monotonic() > end:
                self.controller.fail(f"did not bring all hosts to generation {self.generation}")
            for update in self.pool.updates(1):
                self._note(update)
            self.controller.check()
        return time.monotonic()

    def change_rule(self, i):
        """Returns (seconds to the last host's confirmation, to the last row that
        says so)."""
        self._salt += 1
        start = time.monotonic()
        results = self.pool.transact("Weft_Pool", *self.model.weft_change(i, self._salt))
        self.generation = results[-1]["rows"][0]["generation"]
        told = self.wait_applied()
        return self.last_confirmed() - start, told - start

    def calm(self):
        """Until the controller has nothing to do any more: it looks for rules that
        never decide when nothing else happens."""
        def idle():
            before = cpu_seconds(self.controller.pid)
            time.sleep(0.5)
            return cpu_seconds(self.controller.pid) - before < 0.05

        time.sleep(0.5)
        until("a calm controller", idle)

    def status(self, host):
        with contextlib.closing(JsonRpc(f"{self.dir}/controller.ctl")) as rpc:
            return rpc.call("weft-controllerd/status", f"host{host}")
