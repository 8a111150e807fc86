"""What migrate_faults.sh asks: cells and weft-migrate processes that are killed.

    migrate_faults.py CASE      with DIR, BIN, IMAGE in the environment

Evidence is each cell's run log: lines "start|stop EPOCH NS DOMID PID", appended by both
ends' cells to one file.  At no time may two run, at the end exactly one does, where the
row says."""
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cell_client  # noqa: E402

DIR, BIN, IMAGE = os.environ["DIR"], os.environ["BIN"], os.environ["IMAGE"]
PATIENCE = 20  # s; the machine may be busy
SOURCE_PHASES = "connect prepare precopy pause final commit handover".split()
DESTINATION_PHASES = "prepare precopy load ready run handover".split()
processes = []


def wait_for(what, condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


class Migrate:
    """One end's weft-migrate."""

    def __init__(self, job):
        self.job, self.events, self.end = dict(job), [], None
        self.process = subprocess.Popen([BIN + "/weft-migrate"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        processes.append(self.process)
        self.tell(job)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.events.append({"event": "said", "text": line})

    def tell(self, order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def find(self, **want):
        for e in list(self.events):
            if all(e.get(k) == v for k, v in want.items()):
                return e
        return None

    def until(self, **want):
        wait_for(f"{want} of {self.job['role']}: {self.events[-3:]}",
                 lambda: self.find(**want) or self.process.poll() is not None)
        self.thread.join(0 if self.find(**want) else PATIENCE)
        found = self.find(**want)
        assert found, f"{want} of {self.job['role']}: {self.events[-3:]}"
        return found

    def result(self):
        self.until(event="result")
        self.process.wait(PATIENCE)
        return self.find(event="result")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.thread.join()

    def recover(self):
        job = {k: v for k, v in self.job.items() if k != "pause_at"}
        return Migrate(dict(job, role="recover")).result()


class Vm:
    """A guest at h1, its row, and the cell at h2 that may become it."""
    domid = 100

    def __init__(self, cmdline="rate=10 set=4 fill=4"):
        self.uuid, self.epoch, self.cells = str(uuid.uuid4()), 1, {}
        self.base = f"{DIR}/{self.uuid}"
        self.log, self.claim = self.base + ".runs", self.base + ".row"
        subprocess.run([BIN + "/weft-migrate", "claim", self.claim, self.uuid, "h1", "1"], check=True)
        self.start("h1", "--cmdline", cmdline)
        wait_for("the guest runs", lambda: self.runs())

    def start(self, host, *options):
        Vm.domid += 1
        sock = f"{self.base}.{host}.{Vm.domid}"
        with open(self.base + ".said", "a", encoding="utf-8") as said:
            cell = subprocess.Popen([BIN + "/weft-cell", "--image", IMAGE, "--memory", "64M", "--dir",
                                     DIR + "/xen", "--domid", str(Vm.domid), "--control", sock,
                                     "--run-log", self.log, *options], stdout=said, stderr=said)
        processes.append(cell)
        self.cells[host] = (cell, sock)
        wait_for("the cell's socket", lambda: os.path.exists(sock))

    def runs(self):
        """Who runs, by the log; never two."""
        running = []
        try:
            with open(self.log, encoding="utf-8") as f:
                lines = sorted((line.split() for line in f), key=lambda w: int(w[2]))
        except FileNotFoundError:
            lines = []
        epoch = 0
        for what, e, _ns, domid, _pid in lines:
            if what == "start":
                assert not running and int(e) >= epoch, lines
                running, epoch = [domid], int(e)
            else:
                assert running == [domid], lines
                running = []
        return running

    def job(self, role, host, **more):
        directory = f"{DIR}/{host}"
        os.makedirs(directory, exist_ok=True)
        self.tries = getattr(self, "tries", 0) + 1
        other = "h2" if host == "h1" else "h1"
        return {"role": role, "driver": "cell", "vm": self.uuid, "from": "h1", "to": "h2",
                "epoch": self.epoch, "claim_file": self.claim, "max_blackout_ms": 50,
                "journal": f"{directory}/{self.uuid}.{self.tries}",
                "tls": {"private_key": f"{DIR}/pki/{host}.key", "certificate": f"{DIR}/pki/{host}.crt",
                        "ca_cert": f"{DIR}/pki/ca.crt", "peer_name": other},
                "cell": {"control": self.cells[host][1]}, **more}

    def migrate(self, source=None, destination=None):
        """Both ends, started; what is given is added to their jobs."""
        self.start("h2", "--incoming")
        migration = str(uuid.uuid4())
        d = Migrate({**self.job("receive", "h2", listen="127.0.0.1:0", migration=migration,
                                accept_ms=20000), **(destination or {})})
        address = d.until(event="listening")["address"]
        s = Migrate({**self.job("send", "h1", connect=address, migration=migration),
                     **(source or {})})
        return s, d

    def row(self):
        with open(self.claim, encoding="utf-8") as f:
            row = json.load(f)
        return row["host"], row["epoch"]

    def settled(self, host=None):
        """Exactly one runs, where the row says; the other is gone."""
        at, epoch = self.row()
        assert host in (None, at), (host, at)
        other = "h2" if at == "h1" else "h1"
        here = cell_client.Cell(self.cells[at][1])
        status = here.status()
        here.close()
        assert status["state"] == "running" and status["epoch"] == epoch, status
        if other in self.cells:
            wait_for("the other cell's end", lambda: self.cells[other][0].poll() is not None)
        assert len(self.runs()) == 1
        return at

    def destroy(self):
        for cell, _ in self.cells.values():
            cell.kill()
            cell.wait()


def memory_hash(sock):
    cell = cell_client.Cell(sock)
    h = hashlib.sha256(cell.memory()).hexdigest()
    cell.close()
    return h


def killed(source, phase):
    vm = Vm()
    stop = {"pause_at": phase}
    s, d = vm.migrate(stop if source else None, None if source else stop)
    victim, other = (s, d) if source else (d, s)
    victim.until(event="stopped")
    victim.kill()
    at = time.monotonic()
    if source and phase == "connect":
        other.tell({"cmd": "cancel"})
    result = other.result()
    took = time.monotonic() - at
    vm.runs()
    recovered = victim.recover()
    if not d.find(event="phase", phase="precopy"):
        # weft-migrate never had it; the cell is still of whoever started it.
        vm.cells.pop("h2")[0].kill()
    assert result["status"] != "failed" and recovered["status"] != "failed", (result, recovered)
    where = vm.settled()
    print(f"{'source' if source else 'destination'} killed in {phase}: survivor {result['status']} "
          f"after {took:.2f} s, recovered {recovered['status']}, runs at {where}")
    vm.destroy()


def case_source_killed():
    for phase in SOURCE_PHASES:
        killed(True, phase)


def case_destination_killed():
    for phase in DESTINATION_PHASES:
        killed(False, phase)


def case_memory_is_equal():
    vm = Vm("rate=200 set=8 fill=8")
    s, d = vm.migrate({"pause_at": "commit"})
    s.until(event="stopped")
    assert vm.runs() == []
    hashes = [memory_hash(vm.cells[h][1]) for h in ("h1", "h2")]
    assert hashes[0] == hashes[1], hashes
    s.tell({"cmd": "continue"})
    assert s.result()["status"] == "ok" and d.result()["status"] == "ok"
    vm.settled("h2")
    vm.destroy()


def case_refused():
    vm = Vm()
    for what in ({"vm": str(uuid.uuid4())}, {"epoch": 5}, {"from": "h9"}):
        s, d = vm.migrate(None, dict(what, accept_ms=3000, answer_ms=3000))
        results = [s.result()["status"], d.result()["status"]]
        assert "ok" not in results and not s.find(event="phase", phase="pause"), (what, results)
        assert vm.runs(), what
        vm.cells.pop("h2")[0].kill()
    vm.settled("h1")
    vm.destroy()


def case_same_vm_twice():
    vm = Vm()
    s, d = vm.migrate({"pause_at": "precopy"})
    s.until(event="stopped")
    again = Migrate(dict(s.job, migration=str(uuid.uuid4()), journal=s.job["journal"] + "b"))
    result = again.result()
    assert result["status"] == "failed" and "another migration" in result["why"], result
    s.tell({"cmd": "continue"})
    assert s.result()["status"] == "ok" and d.result()["status"] == "ok"
    vm.settled("h2")
    vm.destroy()


def case_eight_at_once():
    vms = [Vm() for _ in range(8)]
    ends = [vm.migrate() for vm in vms]
    for vm, (s, d) in zip(vms, ends):
        results = s.result(), d.result()
        assert all(r["status"] == "ok" for r in results), results
        vm.settled("h2")
        vm.destroy()


def case_dirtying_everything():
    """More is written than the wire takes: throttled until it fits, or given up."""
    vm = Vm("rate=2000 set=8 fill=8")
    s, d = vm.migrate({"limit_mbps": 400, "max_blackout_ms": 20, "max_rounds": 15})
    result = s.result()
    d.result()
    assert result["rounds"] <= 15, result
    assert result["status"] == "ok" or "faster" in result["why"], result
    throttle = max(e.get("throttle", 0) for e in s.events)
    print(f"{result['status']}, {result['rounds']} rounds, throttled by {throttle} %, "
          f"blackout {result['blackout_ms']:.0f} ms")
    assert throttle > 0
    vm.settled()
    vm.destroy()


def case_cancelled():
    vm = Vm()
    for phase in ("prepare", "precopy", "final"):
        s, d = vm.migrate({"pause_at": phase})
        s.until(event="stopped")
        s.process.send_signal(signal.SIGINT)
        result = s.result()
        assert result["status"] == "rolled_back" and result["why"] == "cancelled", result
        assert d.result()["status"] == "rolled_back"
        vm.settled("h1")
        vm.epoch = vm.row()[1]
    # In the middle of the first round it is known how far, how fast and how long.
    s, d = vm.migrate({"limit_mbps": 5})
    wait_for("progress in the first round",
             lambda: [e for e in list(s.events) if e["event"] == "progress" and e["round"] == 1 and
                      0 < e["pages_left"] < 64 << 8 and e["rate_mbps"] and e["eta_s"] is not None and
                      e["expected_blackout_ms"] is None])
    s.tell({"cmd": "cancel"})
    assert s.result()["status"] == d.result()["status"] == "rolled_back"
    vm.settled("h1")
    vm.destroy()


def case_postcopy():
    vm = Vm("rate=500 set=8 fill=8")
    more = {"postcopy": True, "max_blackout_ms": 1, "max_throttle": 0, "max_rounds": 1000}
    s, d = vm.migrate(dict(more, limit_mbps=400, pause_at="postcopy"), more)
    s.tell({"cmd": "postcopy"})
    s.until(event="stopped")
    # The guest runs there already; its last pages are only here.
    d.until(event="phase", phase="postcopy")
    s.kill()
    d.until(event="waiting")
    assert s.recover()["status"] == "ok" and d.result()["status"] == "ok"
    vm.settled("h2")
    vm.destroy()


try:
    globals()["case_" + sys.argv[1].replace("-", "_")]()
finally:
    for p in processes:
        if p.poll() is None:
            p.kill()
            p.wait()
