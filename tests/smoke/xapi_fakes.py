#!/usr/bin/env python3
"""Stand-ins for weft-cell, weft-domain and weft-migrate, by the name they are called
by: what weft-xapid sees of them, without a guest.  A Xen domain is a file
FAKE_DIR/HOST.VM with its number in it.

FAKE_DB is the pool's database; files in FAKE_DIR say how they behave:
  die-send      weft-migrate send dies once, without a word
  die-recv      weft-migrate receive dies once, when the VM is here and does not run
  fail-recv     weft-migrate receive fails once, behind the migration's end, when the VM
                is here and does not run
  hold          the sender waits for this file to go
  no-way        the sender gives up
  stays         the sender says nothing when the VM has moved, and waits for this file to go
  whole         the receiver makes its domain before the row says so; told to cancel,
                it needs 1.2 s to take it away again
  die-end       told to cancel, the receiver dies once and leaves its domain
  crash         weft-cell exits at once, weft-domain cannot make the domain
  half          weft-domain dies once, while it makes the domain
Each run of a guest is a line "start|stop VM EPOCH PID" in FAKE_DIR/runs."""
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time

fake_dir = os.environ["FAKE_DIR"]


def flag(name):
    return os.path.exists(f"{fake_dir}/{name}")


def note(*words):
    with open(f"{fake_dir}/runs", "a") as f:
        f.write(" ".join(str(w) for w in words) + "\n")


def transact(*operations):
    said = subprocess.run(
        [os.environ["FAKE_OVSDB_CLIENT"], "transact", os.environ["FAKE_DB"],
         json.dumps(["Weft_Pool", *operations])],
        check=True, capture_output=True, text=True).stdout
    return json.loads(said)


def cell():
    args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    path = args["--control"]
    name = os.path.basename(path)[len("cell-"):-len(".ctl")]
    if flag("crash"):
        print("weft-cell: no such image", file=sys.stderr)
        sys.exit(1)
    if os.path.exists(path):
        os.unlink(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(path)
    if "--incoming" not in sys.argv:
        note("start", name, args["--epoch"], os.getpid())
    server.listen()  # weft-xapid takes it to be up
    clients = []

    def end(*_):
        note("stop", name, os.getpid())
        os.unlink(path)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        for s in select.select([server, *clients], [], [])[0]:
            if s is server:
                clients.append(server.accept()[0])
                continue
            data = s.recv(2048)
            if not data:
                clients.remove(s)
            elif struct.unpack_from("=IHH", data)[2] == 16:  # CELL_OP_DESTROY
                end()


def domain_path(host, vm):
    return f"{fake_dir}/{host}.{vm}"


def make_domain(host, vm):
    with open(domain_path(host, vm), "x") as f:
        f.write(str(os.getpid()))


def domain():
    """Which host's it is stands in the mark of its weft-xapid."""
    host = os.environ["WEFT_PROC"].split("/")[-2]
    job = first_line()
    vm = job["uuid"]
    path = domain_path(host, vm)
    with open(f"{fake_dir}/jobs", "a") as f:
        print(json.dumps({"host": host, **job}), file=f)
    if job["start"] and (flag("crash") or os.path.exists(path)):
        say(event="ended", domid=0, why="libxl does not make the domain")
        return
    if job["start"] and flag("half"):
        os.unlink(f"{fake_dir}/half")
        os.kill(os.getpid(), signal.SIGKILL)
    if job["start"]:
        make_domain(host, vm)
        note("start", vm, job["epoch"], os.getpid())
    if not os.path.exists(path):
        say(event="ended", domid=0, why="the domain is not here any more")
        return
    say(event="running", domid=5)
    while os.path.exists(path):
        if select.select([0], [], [], 0.05)[0] and b'"cmd"' in os.read(0, 4096):
            note("stop", vm, os.getpid())
            os.unlink(path)
    say(event="ended", domid=5, why="")


def say(**event):
    os.write(1, (json.dumps(event) + "\n").encode())


def resident(vm):
    rows = transact({"op": "select", "table": "VM", "where": [["_uuid", "==", ["uuid", vm]]],
                     "columns": ["resident_on", "epoch"]})[0]["rows"]
    return rows[0]["resident_on"], rows[0]["epoch"]


def is_open(migration):
    where = [["migration", "==", migration], ["status", "==", "running"]]
    return transact({"op": "select", "table": "Migration", "where": where})[0]["rows"]


def destroy(control):
    try:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect(control)
        s.send(struct.pack("=IHHIIQ", 0x4C4C4543, 1, 16, 1, 0, 0))
        s.recv(100)
    except OSError:
        pass


def journal(job, step):
    with open(job["journal"], "a") as f:
        f.write(f"{'0' * 16} {step}\n")


def discard(job, made):
    if flag("die-end"):
        os.unlink(f"{fake_dir}/die-end")
        os.kill(os.getpid(), signal.SIGKILL)
    if made:
        time.sleep(1.2)  # longer than weft-xapid's beat
        os.unlink(domain_path(job["to"], job["vm"]))
    journal(job, "done")
    note("discard", job["vm"], os.getpid())
    say(event="result", status="rolled_back", why="cancelled")


def receive(job):
    made = job["driver"] == "xen" and job["role"] == "receive" and flag("whole")
    if made:
        journal(job, "prepared")
        make_domain(job["to"], job["vm"])
    if job["role"] == "receive":
        s = socket.socket()
        s.bind(("127.0.0.1", 0))
        say(event="listening", address="127.0.0.1:%d" % s.getsockname()[1])
    while True:
        host, epoch = resident(job["vm"])
        if host == job["to"]:
            if flag("die-recv"):
                os.unlink(f"{fake_dir}/die-recv")
                journal(job, "ready")
                time.sleep(1)  # all others have seen the row
                os.kill(os.getpid(), signal.SIGKILL)
            if flag("fail-recv"):
                os.unlink(f"{fake_dir}/fail-recv")
                journal(job, "ready")
                while is_open(job["migration"]):
                    time.sleep(0.1)
                say(event="result", why="it does not run", status="failed", more="x" * 1000)
                return
            journal(job, "done")
            if job["driver"] == "xen" and not made:
                make_domain(job["to"], job["vm"])
            note("start", job["vm"], epoch, "moved")
            say(event="result", status="ok", why="", blackout_ms=1)
            return
        if select.select([0], [], [], 0.1)[0] and b'"cancel"' in os.read(0, 4096):
            discard(job, made)
            return


def send(job):
    if flag("die-send") and job["role"] == "send":
        os.unlink(f"{fake_dir}/die-send")
        os.kill(os.getpid(), signal.SIGKILL)
    done = 0
    os.set_blocking(0, False)
    while done < 3 or flag("hold"):
        say(event="progress", phase="precopy", round=1, bytes_wire=done << 20,
            bytes_guest=done << 20, pages_left=1000, rate_mbps=800)
        time.sleep(0.1)
        done += 1
        try:
            command = os.read(0, 4096)
        except BlockingIOError:
            command = b""
        if b'"postcopy"' in command:
            note("postcopy", job["vm"])
        if b'"cancel"' in command or flag("no-way"):
            say(event="result", status="rolled_back",
                why="no way" if flag("no-way") else "cancelled")
            return
    note("stop", job["vm"], "moved")
    where = [["_uuid", "==", ["uuid", job["vm"]]], ["resident_on", "==", job["from"]],
             ["epoch", "==", job["epoch"]]]
    transact({"op": "update", "table": "VM", "where": where,
              "row": {"resident_on": job["to"], "epoch": job["epoch"] + 1, "destination": "",
                      "migration": ""}})
    if job["driver"] == "xen":
        os.unlink(domain_path(job["from"], job["vm"]))
    else:
        destroy(job["cell"]["control"])
    while flag("stays"):
        time.sleep(0.1)
    vifs = [{"uuid": v["uuid"], "port": v["port"], "blackout_ms": 2.5} for v in job["vifs"]]
    say(event="result", status="ok", why="", blackout_ms=1, vifs=vifs,
        phases_ms={"precopy": 7, "pause": 0.4, "final": 0.3, "commit": 0.2},
        lost="groups\nlate frames" if vifs else "", longer="x" * 5000)


def first_line():
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1)
    return json.loads(line)


called = os.path.basename(sys.argv[0])
if called == "weft-cell":
    cell()
elif called == "weft-domain":
    domain()
else:
    job = first_line()
    with open(f"{fake_dir}/jobs", "a") as f:
        print(json.dumps(job), file=f)
    assert job["migration"] and job["journal"] and len(sys.argv) == 1
    send(job) if "connect" in job else receive(job)
