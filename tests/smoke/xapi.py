#!/usr/bin/env python3
"""The cases of xapi.sh: BIN DIR.  Prints "ok xapi/CASE" and "not ok xapi/CASE: why"."""
import hashlib
import http.client
import json
import os
import random
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from uuid import uuid4

bin_dir, top = sys.argv[1:]
here = os.path.dirname(os.path.abspath(__file__))
port = random.randint(20000, 50000)
db = f"unix:{top}/db/db.sock"
pki = f"{top}/pki"
env = dict(os.environ, FAKE_DIR=f"{top}/fake", FAKE_DB=db,
           FAKE_OVSDB_CLIENT=f"{bin_dir}/ovsdb-client", OVS_RUNDIR=top, OVS_LOGDIR=top,
           OVS_DBDIR=top, WEFT_PKI=pki)
for name in ("WEFT_XAPI", "WEFT_CERTIFICATE", "WEFT_PRIVATE_KEY", "WEFT_CA_CERT", "WEFT_PASSWORD"):
    env.pop(name, None)
xapids = {}
other_order = str(uuid4())


class Failure(Exception):
    """A XenAPI failure: its code and parameters."""

    def __init__(self, error):
        super().__init__(f"{error['message']} {error['data']}")
        self.code, self.data = error["message"], error["data"]


def run(*args, **kw):
    return subprocess.run(args, check=True, capture_output=True, text=True, env=env, **kw).stdout


def keep(process):
    with open(f"{top}/pids", "a") as f:
        print(process.pid, file=f)
    return process


def until(seconds, condition, what):
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not in {seconds} s: {what}")
        time.sleep(0.05)
    return value


# --- requests -------------------------------------------------------------------


def tls(user=None):
    context = ssl.create_default_context(cafile=f"{pki}/ca.crt")
    if user:
        context.load_cert_chain(f"{pki}/{user}.crt", f"{pki}/{user}.key")
    return context


def post(host, body, path="/jsonrpc", user=None, kind="application/json", method="POST"):
    """(HTTP status, text) of a request to h1 or h2."""
    c = http.client.HTTPSConnection(f"127.0.0.{host}", port, context=tls(user), timeout=60)
    try:
        c.request(method, path, body, {"Content-Type": kind} if kind else {})
        answer = c.getresponse()
        return answer.status, answer.read().decode()
    finally:
        c.close()


def raw(host, method, *params, user=None, path="/jsonrpc", version="2.0"):
    request = {"method": method, "params": list(params), "id": 7}
    if version:
        request["jsonrpc"] = version
    return json.loads(post(host, json.dumps(request), path, user)[1])


class Session:
    """Calls to the coordinator, wherever it is."""

    def __init__(self):
        def login():
            for host in xapids:
                try:
                    answer = raw(host, "session.login_with_password", "root", "secret")
                except OSError:
                    continue
                if "result" in answer:
                    return host, answer["result"]
            return None
        self.host, self.ref = until(20, login, "no coordinator")

    def __call__(self, method, *params):
        answer = raw(self.host, method, self.ref, *params)
        assert answer["jsonrpc"] == "2.0" and answer["id"] == 7, answer
        if "error" in answer:
            assert answer["error"]["code"] == 1, answer
            raise Failure(answer["error"])
        return answer["result"]

    def one(self, cls, name):
        return self(f"{cls}.get_by_name_label", name)[0]

    def vm(self, name, **record):
        return self("VM.create", dict(name_label=name, memory_static_max=64 << 20, **record))

    def ended(self, task, seconds=25):
        until(seconds, lambda: self("task.get_status", task) not in ("pending", "cancelling"),
              f"task {task}")
        return self("task.get_record", task)


def fails(code, call, *args):
    try:
        said = call(*args)
    except Failure as f:
        assert f.code == code, f"{f.code} {f.data} instead of {code}"
        return f.data
    raise AssertionError(f"{args}: {said} instead of {code}")


# --- the pool --------------------------------------------------------------------


def start_xapid(n, *options):
    options = options or [f"--db={db}"]
    xapids[n] = keep(subprocess.Popen(
        [f"{bin_dir}/weft-xapid", *options, f"--host=h{n}", f"--listen=ssl:{port}:127.0.0.{n}",
         f"--listen=unix:{top}/h{n}.sock", f"--rest-private-key={pki}/xapid{n}.key",
         f"--rest-certificate={pki}/xapid{n}.crt", f"--rest-ca-cert={pki}/ca.crt",
         f"--advertise=https://127.0.0.{n}:{port}", f"--run-dir={top}/h{n}", f"--bin={top}/bin",
         f"--passwords={top}/passwords", "--plain-migration", f"--switch-dir={top}", f"--unixctl={top}/h{n}.ctl",
         f"--log-file={top}/h{n}.log", f"--audit-log={top}/audit{n}", "-vconsole:off"], env=env))


def transact(*operations):
    return json.loads(run(f"{bin_dir}/ovsdb-client", "transact", db,
                          json.dumps(["Weft_Pool", *operations])))


def start_db():
    global server
    server = keep(subprocess.Popen([f"{bin_dir}/weft", "pool", "db", "run", f"{top}/db"], env=env,
                                   stdout=subprocess.DEVNULL))
    until(10, lambda: os.path.exists(f"{top}/db/db.sock"), "the database")


def start_pool():
    os.makedirs(f"{top}/bin")
    os.makedirs(f"{top}/fake")
    for name in ("weft-cell", "weft-domain", "weft-migrate"):
        os.symlink(f"{here}/xapi_fakes.py", f"{top}/bin/{name}")
    weft = f"{bin_dir}/weft"
    run(weft, "pki", "init", pki)
    for n in (1, 2):
        run(weft, "pki", "host", f"xapid{n}", "--address", f"127.0.0.{n}")
    run(weft, "pki", "user", "olga", "--role", "operator")
    run(weft, "pki", "user", "vera", "--role", "viewer")
    lines = [run(f"{bin_dir}/weft-xapid", "--hash-password", u, r, input="secret\n")
             for u, r in (("root", "admin"), ("rita", "viewer"))]
    with open(f"{top}/passwords", "w") as f:
        f.writelines(["# users\n", *lines])
        # One whose password costs nothing to check, and one where it takes a while.
        salt = os.urandom(16)
        digest = hashlib.pbkdf2_hmac("sha256", b"x", salt, 1)
        print("quick viewer pbkdf2-sha256 1", salt.hex(), digest.hex(), file=f)
        print("slow viewer pbkdf2-sha256 2000000", salt.hex(), digest.hex(), file=f)
    db_pki = f"{top}/pki-db"
    run(weft, "pki", "init", db_pki)
    run(weft, "pki", "host", "db", "--dir", db_pki, "--address", "127.0.0.3")
    run(weft, "pool", "db", "create", f"{top}/db", "--name", "db", "--address", f"127.0.0.3:{port}",
        "--private-key", f"{db_pki}/db.key", "--certificate", f"{db_pki}/db.crt", "--ca-cert",
        f"{db_pki}/ca.crt")
    run(weft, "pool", "db", "hosts", f"{top}/db", f"{pki}/ca.crt")
    start_db()
    insert = [("Host", {"name": "h1", "enabled": True}), ("Host", {"name": "h2", "enabled": True}),
              ("Network", {"name": "red", "mtu": 1500, "type": "vlan", "encapsulation": "geneve",
                           "default_locking_mode": "unlocked", "policy_epoch": 1})]
    said = transact(*({"op": "insert", "table": t, "row": r} for t, r in insert))
    assert all("uuid" in one for one in said), said
    start_xapid(1)
    start_xapid(2)


def runs(vm):
    """Lines of the fakes about a guest: what started and stopped, in order."""
    try:
        with open(f"{top}/fake/runs") as f:
            return [line.split()[0] for line in f if vm.split(":")[1] in line]
    except FileNotFoundError:
        return []


def flag(name, on=True):
    if on:
        open(f"{top}/fake/{name}", "w").close()
    else:
        os.unlink(f"{top}/fake/{name}")


# --- the cases --------------------------------------------------------------------


def case_envelopes(x):
    get = ("pool.get_all", x.ref)
    assert set(raw(x.host, *get)) == {"jsonrpc", "result", "id"}
    v1 = raw(x.host, *get, version=None)
    assert v1["error"] is None and len(v1["result"]) == 1 and v1["id"] == 7, v1
    old = raw(x.host, *get, version=None, path="/json")
    assert old["result"]["Status"] == "Success" and old["result"]["Value"] == v1["result"], old
    bad = ("pool.get_all", "OpaqueRef:none")
    assert raw(x.host, *bad)["error"] == {"code": 1, "message": "SESSION_INVALID",
                                          "data": ["OpaqueRef:none"]}
    assert raw(x.host, *bad, version=None)["error"] == ["SESSION_INVALID", "OpaqueRef:none"]
    old = raw(x.host, *bad, version=None, path="/json")
    assert old["result"] == {"Status": "Failure",
                             "ErrorDescription": ["SESSION_INVALID", "OpaqueRef:none"]}, old


def case_sessions(x):
    for name, password in (("root", "wrong"), ("nobody", "secret"), ("root", ""), ("", "")):
        answer = raw(x.host, "session.login_with_password", name, password)
        assert answer["error"]["message"] == "SESSION_AUTHENTICATION_FAILED", answer
    # A client certificate, its role from its OU; not for another's name.
    olga = raw(x.host, "session.login_with_password", "", "", user="olga")["result"]
    assert raw(x.host, "session.get_record", olga, olga)["result"]["auth_user_name"] == "olga"
    assert "error" in raw(x.host, "session.login_with_password", "root", "", user="olga")
    # Roles: a viewer reads and changes nothing.
    vera = raw(x.host, "session.login_with_password", "vera", "", user="vera")["result"]
    rita = raw(x.host, "session.login_with_password", "rita", "secret", "1.0", "me")["result"]
    net = x.one("network", "red")
    for ref in (vera, rita):
        assert raw(x.host, "network.get_name_label", ref, net)["result"] == "red"
        for method, *params in (("VM.create", {"name_label": "v"}),
                                ("network.set_name_label", net, "blue"),
                                ("session.get_all",)):
            answer = raw(x.host, method, ref, *params)
            assert answer["error"]["message"] == "RBAC_PERMISSION_DENIED", (method, answer)
    assert raw(x.host, "session.logout", vera)["result"] == ""
    assert raw(x.host, "pool.get_all", vera)["error"]["message"] == "SESSION_INVALID"
    # Who is disabled loses the sessions he has.
    transact({"op": "insert", "table": "User",
              "row": {"name": "rita", "role": "operator", "enabled": False}})
    until(5, lambda: raw(x.host, "pool.get_all", rita).get("error", {}).get("message") ==
          "SESSION_INVALID", "the end of the session")
    transact({"op": "delete", "table": "User", "where": [["name", "==", "rita"]]})
    # The other host says who is the coordinator.
    other = raw(3 - x.host, "session.login_with_password", "root", "secret")
    assert other["error"] == {"code": 1, "message": "HOST_IS_SLAVE",
                              "data": [f"127.0.0.{x.host}"]}, other


def case_errors(x):
    host = x.one("host", "h1")
    assert fails("MESSAGE_METHOD_UNKNOWN", x, "VM.nope") == ["VM.nope"]
    fails("MESSAGE_METHOD_UNKNOWN", x, "Async.VM.get_all")
    fails("MESSAGE_METHOD_UNKNOWN", x, "host.set_name_label", host, "x")
    assert fails("MESSAGE_PARAMETER_COUNT_MISMATCH", x, "VM.start") == ["VM.start", "4", "1"]
    fails("FIELD_TYPE_ERROR", x, "VM.get_by_uuid", 5)
    assert fails("HANDLE_INVALID", x, "VM.get_record", host) == ["VM", host]
    assert fails("UUID_INVALID", x, "host.get_by_uuid", "zz") == ["host", "zz"]
    fails("FIELD_TYPE_ERROR", x, "network.set_name_label", x.one("network", "red"), ["a"])
    fails("VALUE_NOT_SUPPORTED", x, "network.set_default_locking_mode", x.one("network", "red"),
          "locked")
    fails("EVENT_FROM_TOKEN_PARSE_FAILURE", x, "event.from", ["*"], "1;2", 0.1)
    fails("EVENT_SUBSCRIPTION_PARSE_FAILURE", x, "event.from", ["vm"] * 257, "", 0.1)
    fails("FIELD_TYPE_ERROR", x, "VM.create", {"name_label": "n" * 256})
    # Files of the host's, names longer than a FIFO, interfaces written in other ways.
    vm = x.vm("odd", other_config={"image": "../odd.img"})
    assert fails("INTERNAL_ERROR", x, "VM.start", vm, False, False) == ["Invalid argument"]
    fails("INVALID_VALUE", x, "VM.set_name_label", vm, "n" * 100000)
    vif = {"VM": vm, "network": x.one("network", "red"), "MAC": ""}
    fails("INVALID_DEVICE", x, "VIF.create", {**vif, "device": "00"})
    fails("MAC_INVALID", x, "VIF.create", {**vif, "device": "0", "MAC": "-2:00:00:00:00:01"})
    x("VM.destroy", vm)


def case_records(x):
    vm = x.vm("rec", other_config={"ip": "10.0.0.9/8"})
    vif = x("VIF.create", {"VM": vm, "network": x.one("network", "red"), "device": "0",
                           "ipv4_allowed": ["10.0.0.9"]})
    fails("DEVICE_ALREADY_EXISTS", x, "VIF.create",
          {"VM": vm, "network": x.one("network", "red"), "device": "0"})
    fails("OPERATION_NOT_ALLOWED", x, "VM.create", {"name_label": "rec"})
    record = x("VM.get_record", vm)
    assert record["VIFs"] == [vif] and record["power_state"] == "Halted", record
    assert record["memory_static_max"] == 64 << 20 and record["resident_on"] == "OpaqueRef:NULL"
    assert "start" in record["allowed_operations"], record
    for name, value in record.items():
        assert x(f"VM.get_{name}", vm) == value, name
    assert x("VM.get_all_records")[vm] == record
    assert x("VM.get_by_uuid", record["uuid"]) == vm
    assert x("VIF.get_VM", vif) == vm and x("VIF.get_ipv4_allowed", vif) == ["10.0.0.9"]
    x("VIF.set_locking_mode", vif, "locked")
    assert x("VIF.get_locking_mode", vif) == "locked"
    x("VM.set_other_config", vm, {"a": "b"})
    assert x("VM.get_other_config", vm) == {"a": "b"}
    assert sorted(x("host.get_name_label", h) for h in x("host.get_all")) == ["h1", "h2"]
    assert x("pool.get_master", x("pool.get_all")[0]) == x.one("host", f"h{x.host}")
    x("VM.destroy", vm)
    fails("HANDLE_INVALID", x, "VIF.get_record", vif)


def case_power(x):
    vm = x.vm("pow")
    token = x("event.from", ["vm"], "", 0.1)["token"]
    x("VM.start", vm, False, False)
    assert x("VM.get_power_state", vm) == "Running" and runs(vm) == ["start"]
    data = fails("VM_BAD_POWER_STATE", x, "VM.start", vm, False, False)
    assert data == [vm, "halted", "running"], data
    fails("VM_BAD_POWER_STATE", x, "VM.destroy", vm)
    x("VM.clean_shutdown", vm)
    assert x("VM.get_resident_on", vm) == "OpaqueRef:NULL" and runs(vm) == ["start", "stop"]
    changes = x("event.from", ["vm/" + vm], token, 5)["events"]
    assert [(e["operation"], e["ref"]) for e in changes] == [("mod", vm)], changes
    h2 = x.one("host", "h2")
    x("VM.start_on", vm, h2, False, False)
    assert x("host.get_resident_VMs", h2) == [vm]
    # Killed from outside: noticed, and the row says so.
    with open(f"{top}/h2/cell-{vm.split(':')[1]}.pid") as f:
        os.kill(int(f.read()), signal.SIGKILL)
    until(10, lambda: x("VM.get_power_state", vm) == "Halted", "a dead guest's row")
    # One that does not come up: the claim is given back.
    flag("crash")
    data = fails("INTERNAL_ERROR", x, "VM.start", vm, False, False)
    flag("crash", False)
    assert "no such image" in data[0] and x("VM.get_resident_on", vm) == "OpaqueRef:NULL", data
    x("VM.start", vm, False, False)
    x("VM.hard_shutdown", vm)
    x("VM.destroy", vm)


def case_start_once(x):
    """Eight clients start one VM: one of them does."""
    vm, said = x.vm("one"), []

    def start():
        try:
            said.append(x("VM.start", vm, False, False))
        except Failure as f:
            said.append(f.code)
    threads = [threading.Thread(target=start) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert said.count("") == 1 and runs(vm) == ["start"], (said, runs(vm))
    assert set(said) <= {"", "VM_BAD_POWER_STATE", "OTHER_OPERATION_IN_PROGRESS"}, said
    x("VM.hard_shutdown", vm)


def case_migrate(x):
    vm = x.vm("mig")
    h1, h2 = x.one("host", "h1"), x.one("host", "h2")
    x("VM.start_on", vm, h1, False, False)
    fails("OPERATION_NOT_ALLOWED", x, "VM.pool_migrate", vm, h1, {})
    for option, value in (("compress", "gzip"), ("postcopy", "perhaps"), ("limit_mbps", "x"),
                          ("connections", "0"), ("connections", "17"), ("max_rounds", "0"),
                          ("max_blackout_ms", "600001"), ("cpu_percent", "101")):
        data = fails("INVALID_VALUE", x, "VM.pool_migrate", vm, h2, {option: value})
        assert data == [option, value], data
    x("VM.pool_migrate", vm, h2, {"live": "true", "postcopy": "true", "limit_mbps": "900",
                                  "connections": "16", "max_rounds": "1000"})
    assert x("VM.get_resident_on", vm) == h2 and x("VM.get_power_state", vm) == "Running"
    rows = transact({"op": "select", "table": "Migration", "columns": ["stats"],
                     "where": [["vm", "==", vm.removeprefix("OpaqueRef:")]]})[0]["rows"]
    assert [json.loads(row["stats"])["event"] for row in rows] == ["result"], rows
    assert x("VM.get_scheduled_to_be_resident_on", vm) == "OpaqueRef:NULL"
    # Cancelled: it stays where it is; meanwhile nothing else may be done with it.
    flag("hold")
    task = x("Async.VM.pool_migrate", vm, h1, {})
    until(15, lambda: x("task.get_progress", task) > 0, "progress")
    assert x("VM.get_current_operations", vm) == {task: "pool_migrate"}
    fails("OPERATION_NOT_ALLOWED", x, "VM.migrate_postcopy", vm)
    fails("OTHER_OPERATION_IN_PROGRESS", x, "VM.hard_shutdown", vm)
    fails("OPERATION_NOT_ALLOWED", x, "task.destroy", task)
    x("task.cancel", task)
    record = x.ended(task)
    flag("hold", False)
    assert record["status"] == "cancelled", record
    assert record["error_info"] == ["TASK_CANCELLED", task], record
    assert x("VM.get_resident_on", vm) == h2 and x("VM.get_allowed_operations", vm)
    # The sender dies: another one finishes.
    flag("die-send")
    x("VM.pool_migrate", vm, h1, {})
    assert x("VM.get_resident_on", vm) == h1
    until(10, lambda: not [f for n in (1, 2) for f in os.listdir(f"{top}/h{n}")
                           if f.startswith(("send-", "recv-"))], "files of migrations")
    # The receiver dies when the VM is there and nobody runs it: another one does.
    before = runs(vm).count("start")
    flag("die-recv")
    x("VM.pool_migrate", vm, h2, {})
    until(10, lambda: runs(vm).count("start") == before + 1, "a guest that runs")
    assert x("VM.get_resident_on", vm) == h2
    # It fails, and says so: another one tries, but not at once.
    flag("fail-recv")
    began = time.monotonic()
    x("VM.pool_migrate", vm, h1, {})
    until(20, lambda: runs(vm).count("start") == before + 2, "a guest that runs")
    assert time.monotonic() - began > 4
    x("VM.hard_shutdown", vm)


def case_postcopy(x):
    """Asked for while it moves, if that was allowed."""
    vm, h1, h2 = x.vm("post"), x.one("host", "h1"), x.one("host", "h2")
    x("VM.start_on", vm, h1, False, False)
    fails("OPERATION_NOT_ALLOWED", x, "VM.migrate_postcopy", vm)
    flag("hold")
    task = x("Async.VM.pool_migrate", vm, h2, {"postcopy": "true"})
    x("VM.migrate_postcopy", vm)  # also before there is anybody to be told
    until(15, lambda: runs(vm).count("postcopy"), "the order at the sender")
    flag("hold", False)
    assert x.ended(task)["status"] == "success" and x("VM.get_resident_on", vm) == h2
    assert runs(vm).count("postcopy") == 1, runs(vm)
    # Closed, and its sender stays: it may have memory that the guest waits for.
    flag("stays")
    x("Async.VM.pool_migrate", vm, h1, {})
    until(10, lambda: x("VM.get_resident_on", vm) == h1, "the VM")
    where = [["vm", "==", vm.removeprefix("OpaqueRef:")]]

    def senders():
        return [f"{top}/h2/{f[:-4]}" for f in os.listdir(f"{top}/h2")
                if f.startswith("send-") and f.endswith(".pid")]

    def runs_still(sender):
        with open(f"{sender}.pid") as f, open(f"/proc/{int(f.read())}/stat") as stat:
            return stat.read().rsplit(")")[-1].split()[0] not in "ZX"

    def look():
        """One begins that sees what is so now."""
        with open(f"{top}/h2/send-{uuid4()}.pid", "w") as f:
            print(0, file=f)
        until(5, lambda: not os.path.exists(f.name), "a look at what is left over")
    transact({"op": "update", "table": "Migration", "where": where,
              "row": {"status": "success", "phase": "done", "finished": 1, "stats": "{}"}},
             {"op": "update", "table": "Task", "where": where, "row": {"status": "success"}})
    stray = senders()[0]
    until(5, lambda: os.path.exists(f"{stray}.stray"), "its being found")
    with open(f"{stray}.stray", "w") as f:
        print(time.monotonic_ns() // 1000000 - 200000, file=f)
    look()
    look()
    assert runs_still(stray)
    # All has arrived, which it has not heard for a while: it is ended, or the VM could never
    # come back.
    transact({"op": "update", "table": "Migration", "where": where,
              "row": {"stats": json.dumps({"event": "result", "status": "ok"})}})
    until(5, lambda: not senders(), "the sender's end")
    flag("stays", False)
    x("VM.pool_migrate", vm, h2, {})
    x("VM.hard_shutdown", vm)
    xen = x.vm("postx", driver="xen")
    x("VM.start_on", xen, h1, False, False)
    fails("VALUE_NOT_SUPPORTED", x, "VM.pool_migrate", xen, h2, {"postcopy": "true"})
    x("VM.hard_shutdown", xen)


def case_migrate_fails(x):
    """What XenAPI says of it, whoever asked."""
    vm, h1, h2 = x.vm("fails"), x.one("host", "h1"), x.one("host", "h2")
    x("VM.start_on", vm, h1, False, False)
    flag("no-way")
    said = [vm, h1, h2, "no way"]
    data = fails("VM_MIGRATE_FAILED", x, "VM.pool_migrate", vm, h2, {})
    assert data == said, data
    data = fails("VM_MIGRATE_FAILED", x, "host.evacuate", h1)
    assert data == said, data
    flag("no-way", False)
    where = {"table": "Host", "where": [["name", "==", "h2"]]}
    transact({"op": "update", "row": {"enabled": False}, **where})

    def refused():
        try:
            x("VM.start_on", vm, h2, False, False)
        except Failure as f:
            return f.code == "HOST_DISABLED" and f.data == [h2]
        raise AssertionError("started twice")
    until(5, refused, "HOST_DISABLED")
    fails("HOST_DISABLED", x, "VM.pool_migrate", vm, h2, {})
    transact({"op": "update", "row": {"enabled": True}, **where})
    x("VM.hard_shutdown", vm)


def case_xapid_killed(x):
    """weft-xapid of the source dies in the middle and is started again."""
    vm = x.vm("kill")
    source = 3 - x.host
    there, here_ = x.one("host", f"h{source}"), x.one("host", f"h{x.host}")
    x("VM.start_on", vm, there, False, False)
    flag("hold")
    task = x("Async.VM.pool_migrate", vm, here_, {})
    until(15, lambda: x("task.get_progress", task) > 0, "progress")
    xapids[source].kill()
    xapids[source].wait()
    flag("hold", False)
    time.sleep(0.5)
    start_xapid(source)
    record = x.ended(task)
    assert record["status"] == "success" and x("VM.get_resident_on", vm) == here_, record
    # The guest that it left running is still its own.
    x("VM.start_on", other := x.vm("kept"), there, False, False)
    xapids[source].kill()
    xapids[source].wait()
    start_xapid(source)
    x("VM.hard_shutdown", other)
    assert runs(other) == ["start", "stop"], runs(other)
    x("VM.hard_shutdown", vm)


def jobs_of(vm, **wanted):
    """Those with these members, of its domains' processes and of weft-migrate."""
    with open(f"{top}/fake/jobs") as f:
        jobs = [json.loads(line) for line in f]
    return [j for j in jobs if vm.split(":")[1] in (j.get("uuid"), j.get("vm")) and
            all(j.get(k) == v for k, v in wanted.items())]


def xen_job(vm, **wanted):
    """The newest."""
    return (jobs_of(vm, **wanted) or [None])[-1]


def watcher(n, vm):
    """Kills the process that watches the VM's domain on that host."""
    with open(f"{top}/h{n}/domain-{vm.split(':')[1]}.pid") as f:
        os.kill(int(f.read()), signal.SIGKILL)


def case_xen(x):
    """Domains of Xen: what their process is told, its death, moves, ends."""
    a, b = 3 - x.host, x.host  # the coordinator lives
    host_a, host_b = x.one("host", f"h{a}"), x.one("host", f"h{b}")
    vm = x.vm("xen1", driver="xen", other_config={
        "kernel": "vmlinux", "ramdisk": "rd.gz", "type": "pv", "cmdline": "a=b c", "vcpus": "2"})
    uuid, domain = vm.split(":")[1], lambda n: os.path.exists(f"{top}/fake/h{n}.{vm.split(':')[1]}")
    vif = x("VIF.create", {"VM": vm, "network": x.one("network", "red"), "device": "1",
                           "MAC": "02:00:00:00:00:07"})
    x("VM.start_on", vm, host_a, False, False)
    assert x("VM.get_power_state", vm) == "Running" and domain(a) and runs(vm) == ["start"]
    job = xen_job(vm, host=f"h{a}")
    assert job["start"] and job["name"] == "xen1" and job["type"] == "pv" and job["epoch"] == 1, job
    assert job["kernel"].endswith("/share/vmlinux") and job["ramdisk"].endswith("/share/rd.gz"), job
    assert job["cmdline"] == "a=b c" and job["vcpus"] == 2 and job["memory_kb"] == 64 << 10, job
    assert job["vifs"] == [{"device": 1, "mac": "02:00:00:00:00:07", "bridge": "xenbr0",
                            "script": "vif-weft", "mtu": 1500}], job
    # Who watches it is killed, also while weft-xapid is away: another one does, the
    # domain is the same, and nothing is started.
    watcher(a, vm)
    until(10, lambda: not xen_job(vm, host=f"h{a}")["start"], "another that watches")
    xapids[a].kill()
    xapids[a].wait()
    watcher(a, vm)
    start_xapid(a)
    # Moves, and back at once: the job names its ports, and the row follows the domain.
    for to, n in ((host_b, b), (host_a, a), (host_b, b)):
        x("VM.pool_migrate", vm, to, {})
        until(10, lambda n=n: domain(n) and not domain(3 - n), "the domain there")
        job = xen_job(vm, driver="xen", to=f"h{n}", role="send")
        assert job["vifs"][0]["port"] == "vifDOMID.1", job
        assert job["xen"] == {"bridge": "xenbr0", "script": "vif-weft"}, job
        assert job["vifs"][0]["uuid"] == vif.split(":")[1], job
    until(10, lambda: xen_job(vm, host=f"h{b}"), "one that watches there")
    assert x("VM.get_power_state", vm) == "Running" and x("VM.get_resident_on", vm) == host_b
    assert not os.path.exists(f"{top}/h{a}/domain-{uuid}.pid")
    x("VM.clean_shutdown", vm)
    assert not domain(b) and runs(vm)[-1] == "stop"
    # Its domain goes by itself.
    x("VM.start_on", vm, host_b, False, False)
    os.unlink(f"{top}/fake/h{b}.{uuid}")
    until(10, lambda: x("VM.get_power_state", vm) == "Halted", "a dead domain's row")
    # It cannot be made; its making is cut off: the claim is given back.
    flag("crash")
    data = fails("INTERNAL_ERROR", x, "VM.start", vm, False, False)
    flag("crash", False)
    assert "libxl does not make" in data[0] and x("VM.get_resident_on", vm) == "OpaqueRef:NULL", data
    flag("half")
    data = fails("INTERNAL_ERROR", x, "VM.start", vm, False, False)
    assert "not here any more" in data[0] and x("VM.get_power_state", vm) == "Halted", data
    x("VM.set_other_config", vm, {"kernel": "../vmlinux"})
    assert fails("INTERNAL_ERROR", x, "VM.start", vm, False, False) == ["Invalid argument"]
    x("VM.set_other_config", vm, {})
    x("VM.start_on", vm, host_a, False, False)
    # A move is cancelled: what has come is taken away, by the receiver, which is given
    # the time; or, if it dies, by another.
    for dies, last in (False, "discard"), (True, "stop"):
        flag("hold")
        flag("whole")
        task = x("Async.VM.pool_migrate", vm, host_b, {})
        until(15, lambda: domain(b) and x("task.get_progress", task) > 0, "progress")
        if dies:
            flag("die-end")
        x("task.cancel", task)
        assert x.ended(task)["status"] == "cancelled"
        until(15, lambda: not domain(b), "a host without remains")
        assert runs(vm)[-1] == last and domain(a), runs(vm)
        flag("hold", False)
        flag("whole", False)
    x("VM.hard_shutdown", vm)
    assert not domain(a)
    x("VM.destroy", vm)


def case_forged(x):
    """Rows of Migration that another host adds about an order, before and while it is
    carried out: nothing is sent to it, and the order is not ended by them."""
    vm = x.vm("forged")
    uuid, h1, h2 = vm.split(":")[1], x.one("host", "h1"), x.one("host", "h2")
    x("VM.start_on", vm, h1, False, False)
    order = str(uuid4())
    row = {"vm": uuid, "from_host": "h1", "epoch": 1, "task": order, "address": "127.0.0.1:1",
           "options": '{"force":"true"}', "phase": "ready"}
    ended = dict(row, status="success", finished=1)
    forged = [dict(row, to_host="h3", status="running"), dict(ended, to_host="h3"),
              dict(ended, from_host="h3", to_host="h3"), dict(ended, to_host="h2")]
    for one in forged:
        one["migration"] = str(uuid4())

    def add():
        said = transact(*({"op": "insert", "table": "Migration", "row": r} for r in forged))
        assert all("uuid" in one for one in said), said
    add()
    flag("hold")
    # The order itself, as the coordinator writes it, of a known uuid.
    said = transact({"op": "insert", "table": "Task", "uuid": order, "row": {
        "name": "VM.pool_migrate", "vm": uuid, "host": "h1", "status": "pending", "created": 1,
        "params": json.dumps({"to": "h2", "options": {}})}})
    assert "uuid" in said[0], said
    task = f"OpaqueRef:{order}"
    until(15, lambda: x("task.get_progress", task) > 0, "progress")
    drop = {"op": "delete", "table": "Migration"}
    names = [one["migration"] for one in forged]
    transact(*({**drop, "where": [["migration", "==", name]]} for name in names))
    add()  # others of the same: now behind the real one, perhaps
    jobs = jobs_of(vm)
    assert {j["to"] for j in jobs} == {"h2"} and not {j["migration"] for j in jobs} & set(names), jobs
    flag("hold", False)
    assert x.ended(task)["status"] == "success" and x("VM.get_resident_on", vm) == h2
    assert {j["to"] for j in jobs_of(vm)} == {"h2"}
    transact(*({**drop, "where": [["migration", "==", name]]} for name in names))
    x("VM.hard_shutdown", vm)
    # Nor does the coordinator end another's order by one (case_forged_end, when it has tidied).
    transact({"op": "insert", "table": "Task", "uuid": other_order, "row": {
                 "name": "VM.start", "host": "h3", "status": "pending", "created": 1}},
             {"op": "insert", "table": "Migration", "row": {
                 "migration": str(uuid4()), "from_host": "h1", "to_host": "h1", "finished": 1,
                 "task": other_order, "status": "success"}})


def case_stale_migration(x):
    """A VM's row names a migration that no order has begun, as a host that it was to move to
    can leave it: no order is carried out by it, and it does not stay there."""
    vm = x.vm("stale")
    uuid, h1, h2 = vm.split(":")[1], x.one("host", "h1"), x.one("host", "h2")
    where = [["_uuid", "==", ["uuid", uuid]]]
    names = []

    def left_over():
        names.append(str(uuid4()))
        return {"op": "update", "table": "VM", "where": where,
                "row": {"migration": names[-1], "destination": "h3"}}

    def order(name, to):
        """As the coordinator writes it; the row of Migration says that it is the order's."""
        task = str(uuid4())
        said = transact(
            left_over(),
            {"op": "insert", "table": "Migration", "row": {
                "migration": names[-1], "vm": uuid, "from_host": "h1", "to_host": "h3", "epoch": 1,
                "task": task, "status": "running", "phase": "ready", "address": "127.0.0.1:1",
                "options": '{"force":"true"}'}},
            {"op": "insert", "table": "Task", "uuid": task, "row": {
                "name": name, "vm": uuid, "host": "h1", "status": "pending", "created": 1,
                "params": json.dumps({"to": to, "options": {}})}})
        assert all("error" not in one for one in said), said
        return x.ended(f"OpaqueRef:{task}")

    def row():
        return transact({"op": "select", "table": "VM", "where": where, "columns": [
            "resident_on", "migration", "destination"]})[0]["rows"][0]

    def is_clean():
        return row()["migration"] == row()["destination"] == ""

    x("VM.start_on", vm, h1, False, False)
    ended = order("VM.pool_migrate", "h2")
    assert ended["error_info"][:1] == ["OTHER_OPERATION_IN_PROGRESS"], ended
    assert not jobs_of(vm) and row()["resident_on"] == "h1", jobs_of(vm)
    until(10, is_clean, "a row without the migration")
    ended = order("VM.hard_shutdown", "")
    assert ended["status"] == "success" and row()["resident_on"] == "" and is_clean(), row()
    # Halted: nobody's but the coordinator's.
    transact(left_over())
    until(25, is_clean, "a row without the migration")
    x("VM.start_on", vm, h1, False, False)
    x("VM.pool_migrate", vm, h2, {})
    assert x("VM.get_resident_on", vm) == h2 and {j["to"] for j in jobs_of(vm)} == {"h2"}
    x("VM.hard_shutdown", vm)
    transact(*({"op": "delete", "table": "Migration", "where": [["migration", "==", name]]}
               for name in names))


def case_forged_end(x):
    task = f"OpaqueRef:{other_order}"
    assert x("task.get_status", task) == "pending", x("task.get_record", task)
    transact(*({"op": "delete", "table": table, "where": [[column, "==", value]]}
               for table, column, value in (("Task", "_uuid", ["uuid", other_order]),
                                            ("Migration", "task", other_order))))


def case_evacuate(x):
    h1, h2 = x.one("host", "h1"), x.one("host", "h2")
    vms = [x.vm(f"ev{i}") for i in range(3)]
    for vm in vms:
        x("VM.start_on", vm, h1, False, False)
    flag("hold")
    task = x("Async.host.evacuate", h1, "OpaqueRef:NULL", 2)
    moving = lambda: sum(bool(r["current_operations"])
                         for r in x("VM.get_all_records").values())
    until(15, lambda: moving() == 2, "two at once")
    time.sleep(0.5)
    assert moving() == 2
    flag("hold", False)
    assert x.ended(task)["status"] == "success"
    assert x("host.get_resident_VMs", h1) == []
    for vm in vms:
        assert x("VM.get_resident_on", vm) == h2 and x("VM.get_power_state", vm) == "Running"
        x("VM.hard_shutdown", vm)


def case_events(x):
    first = x("event.from", ["*"], "", 0.1)
    classes = {e["class"] for e in first["events"]}
    assert classes >= {"host", "pool", "network"} and first["valid_ref_counts"]["host"] == 2
    assert all(e["operation"] == "add" and e["snapshot"]["uuid"] for e in first["events"])
    began = time.monotonic()
    none = x("event.from", ["vif"], first["token"], 0.4)
    assert none["events"] == [] and time.monotonic() - began >= 0.3
    got = []
    waiter = threading.Thread(
        target=lambda: got.append(x("event.from", ["vm"], none["token"], 20.0)))
    waiter.start()
    vm = x.vm("ev")
    waiter.join()
    assert [(e["operation"], e["ref"]) for e in got[0]["events"]] == [("add", vm)], got
    x("VM.destroy", vm)
    last = x("event.from", ["vm"], got[0]["token"], 5.0)
    gone = last["events"]
    assert [(e["operation"], e["ref"]) for e in gone] == [("del", vm)], gone
    # Who logs out while he waits is told nothing any more.
    ref = raw(x.host, "session.login_with_password", "root", "secret")["result"]
    waiter = threading.Thread(
        target=lambda: got.append(raw(x.host, "event.from", ref, ["vm"], last["token"], 20.0)))
    waiter.start()
    x("event.from", ["vm"], last["token"], 0.2)
    assert raw(x.host, "session.logout", ref)["result"] == ""
    vm = x.vm("late")
    waiter.join()
    assert got[1].get("error", {}).get("message") == "SESSION_INVALID", got[1]
    x("VM.destroy", vm)


def case_command_line(x):
    vm = x.vm("cli")
    env.update(WEFT_XAPI=f"https://127.0.0.{3 - x.host}:{port}", WEFT_CA_CERT=f"{pki}/ca.crt",
               WEFT_CERTIFICATE=f"{pki}/olga.crt", WEFT_PRIVATE_KEY=f"{pki}/olga.key")
    weft = f"{bin_dir}/weft"
    x("VIF.create", {"VM": vm, "network": x.one("network", "red"), "device": "3"})
    assert run(weft, "vm", "start", "cli", "--on", "h1") == "done\n"
    bad = subprocess.run([weft, "vm", "start", "cli"], env=env, capture_output=True, text=True)
    assert bad.stderr == "weft vm start: VM_BAD_POWER_STATE: cli, halted, running\n", bad
    said = run(weft, "vm", "migrate", "cli", "h2", "--json", "--limit", "500")
    last = json.loads(said.splitlines()[-1])
    assert last["status"] == "success", said
    said = run(weft, "vm", "migrate", "cli", "h1")
    assert said == ("done: blackout 1.0 ms (last pages 0.4, state 0.3, commit 0.2)\n"
                    "  interface 3: 2.5 ms from its last packet there to its first here\n"
                    "  not carried: groups\n  not carried: late frames\n"), said
    flag("no-way")
    bad = subprocess.run([weft, "vm", "migrate", "cli", "h2"], env=env, capture_output=True,
                         text=True)
    assert bad.stderr == "weft vm migrate: VM_MIGRATE_FAILED: cli, h1, h2, no way\n", bad
    bad = subprocess.run([weft, "vm", "postcopy", "cli"], env=env, capture_output=True, text=True)
    assert bad.returncode == 1 and "no migration of the VM is under way" in bad.stderr, bad
    flag("no-way", False)
    run(weft, "vm", "migrate", "cli", "h2")
    run(weft, "host", "evacuate", "h2", "--at-once", "2")
    assert x("host.get_name_label", x("VM.get_resident_on", vm)) == "h1"
    flag("hold")
    p = subprocess.Popen([weft, "vm", "migrate", "cli", "h2"], env=env, stderr=subprocess.PIPE,
                         text=True)
    until(15, lambda: x("VM.get_current_operations", vm), "the migration")
    p.send_signal(signal.SIGINT)
    _, words = p.communicate(timeout=30)
    flag("hold", False)
    assert p.returncode == 1 and "cancelled" in words, (p.returncode, words)
    run(weft, "vm", "shutdown", "cli", "--force")
    bad = subprocess.run([weft, "vm", "start", "nobody"], env=env, capture_output=True, text=True)
    assert bad.returncode == 1 and "there is no VM" in bad.stderr, bad


def peak(host):
    with open(f"/proc/{xapids[host].pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))


def case_hostile(x):
    h = x.host
    before = peak(h)
    deep = b'{"jsonrpc":"2.0","method":"a.b","params":' + b"[" * 100000 + b"]" * 100000 + b"}"
    for body in (deep, b"", b"{", b"[]", b"null", b'"x"', b'{"method":5}', b'{"method":"a","id":{}}',
                 b'{"method":"\xff\xfe"}', b'{"method":"a\\u0000b"}', b'{"method":"a"}x',
                 b'{"method":"' + b"m" * 5000 + b'"}', b"{\0}"):
        status, text = post(h, body)
        assert status == 200 and json.loads(text)["error"]["code"] == -32700, (body[:40], text)
    assert post(h, b"{}", "/")[0] == 404
    assert post(h, None, method="GET")[0] == 405
    assert post(h, b"{}", kind="text/plain")[0] == 415
    # A body of 1 GB, announced or not: refused, not read.
    for headers in ((("Content-Length", str(1 << 30)),), (("Transfer-Encoding", "chunked"),)):
        c = http.client.HTTPSConnection(f"127.0.0.{h}", port, context=tls(), timeout=60)
        c.putrequest("POST", "/jsonrpc")
        c.putheader("Content-Type", "application/json")
        for one in headers:
            c.putheader(*one)
        c.endheaders()
        sent = 0
        try:
            while headers[0][0] == "Transfer-Encoding" and sent < 1 << 30:
                c.send(b"10000\r\n" + b"a" * 65536 + b"\r\n")
                sent += 65536
            assert c.getresponse().status == 413
        except OSError:
            pass
        assert sent < 64 << 20, sent
        c.close()
    # Nor do requests alone earn a place.
    idle = []
    for _ in range(66):
        c = http.client.HTTPSConnection(f"127.0.0.{h}", port, context=tls(), timeout=60)
        c.request("POST", "/jsonrpc", b"{}", {"Content-Type": "application/json"})
        c.getresponse().read()
        idle.append(c)
    assert x("pool.get_all")
    for c in idle:
        c.close()
    # Who trickles takes nobody's place.
    slow = []
    for _ in range(150):
        s = socket.create_connection((f"127.0.0.{h}", port))
        s.send(b"\x16")
        slow.append(s)
    began = time.monotonic()
    assert x("pool.get_all")
    took = time.monotonic() - began
    for s in slow:
        s.close()
    assert took < 5, took
    assert peak(h) - before < 16 << 10, f"{peak(h) - before} KiB"


def case_database_gone(x):
    """The pool's database dies and comes back: guests run on, and so does a shutdown
    that was asked for."""
    vm = x.vm("db")
    x("VM.start", vm, False, False)
    server.kill()
    server.wait()
    os.unlink(f"{top}/db/db.sock")
    refused = raw(x.host, "VM.clean_shutdown", x.ref, vm)["error"]
    # The start's end may have been the last thing that the database did not say.
    assert refused["message"] in ("INTERNAL_ERROR", "HOST_STILL_BOOTING",
                                  "OTHER_OPERATION_IN_PROGRESS"), refused
    time.sleep(1)
    start_db()
    assert runs(vm) == ["start"]

    def shut_down():
        y = Session()
        try:
            y("VM.clean_shutdown", vm)
        except Failure as f:
            assert f.code in ("INTERNAL_ERROR", "HOST_STILL_BOOTING", "SESSION_INVALID"), f
            return None
        return y
    y = until(30, shut_down, "a writable database")
    assert runs(vm) == ["start", "stop"]
    x.host, x.ref = y.host, y.ref


def case_login_flood(x):
    def connect(source):
        return http.client.HTTPSConnection(f"127.0.0.{x.host}", port, context=tls(), timeout=60,
                                           source_address=(source, 0))

    def ask(c, user, password):
        c.request("POST", "/jsonrpc", json.dumps({
            "method": "session.login_with_password", "params": [user, password], "id": 1}),
            {"Content-Type": "application/json"})

    def login(c, user, password):
        ask(c, user, password)
        return json.loads(c.getresponse().read())

    c = connect("127.0.0.77")
    said = [login(c, "quick", f"guess{i}")["error"][2] for i in range(100)]
    c.close()
    assert said[0].startswith("wrong") and "too many" in said[-1], said[-1]
    # Others are not concerned, nor are certificates and sessions.
    c = connect("127.0.0.78")
    assert "wrong" in login(c, "quick", "guess")["error"][2]
    c.close()
    assert raw(x.host, "session.login_with_password", "", "", user="olga")["result"]
    assert x("pool.get_all")
    # Nor while passwords are checked: who asks for something else has his answer first.
    slow = [connect("127.0.0.79") for _ in range(2)]
    for c in slow:
        ask(c, "quick", "guess")
        c.getresponse().read()
        ask(c, "slow", "guess")
    assert x("pool.get_all")
    assert not select.select([slow[1].sock], [], [], 0)[0], "the check was done first"
    for c in slow:
        assert "wrong" in json.loads(c.getresponse().read())["error"][2]
        c.close()


def case_takeover(x):
    old = x.host
    xapids[old].kill()
    xapids.pop(old).wait()
    y = Session()
    assert y.host != old
    assert raw(y.host, "pool.get_all", x.ref)["error"]["message"] == "SESSION_INVALID"
    start_xapid(old)
    # It comes back as one of the others.
    until(15, lambda: raw_or_none(old, "session.login_with_password", "root", "secret") ==
          ["127.0.0.%d" % y.host], "HOST_IS_SLAVE of the old coordinator")


def case_hosts_role(x):
    """One that the database lets write what is its host's and nothing else: all goes on."""
    x = Session()
    n = 3 - x.host
    name = f"h{n}"
    run(f"{bin_dir}/weft", "pki", "host", name)
    xapids[n].kill()
    xapids[n].wait()
    started = os.path.getsize(f"{top}/{name}.log")
    start_xapid(n, "--agent-only", f"--db=ssl:127.0.0.3:{port + 3}", f"--ca-cert={top}/pki-db/ca.crt",
                f"--private-key={pki}/{name}.key", f"--certificate={pki}/{name}.crt")
    vm, own, other = x.vm("own"), x.one("host", name), x.one("host", f"h{x.host}")
    x("VM.start_on", vm, own, False, False)
    x("host.evacuate", own)
    assert x("VM.get_resident_on", vm) == other
    x("VM.pool_migrate", vm, own, {})
    assert x("VM.get_resident_on", vm) == own
    x("VM.clean_shutdown", vm)
    with open(f"{top}/{name}.log") as f:
        f.seek(started)
        log = f.read()
    assert "RBAC" not in log and "transaction failed" not in log, log[-400:]


def raw_or_none(*args):
    try:
        return raw(*args)["error"]["data"]
    except (OSError, KeyError):
        return None


def case_audit(x):
    with open(f"{top}/audit{x.host}") as f:
        lines = [json.loads(line) for line in f]
    outcomes = {(line["method"], line["outcome"]) for line in lines}
    assert ("session.login_with_password", "Success") in outcomes
    assert ("VM.create", "Success") in outcomes and ("VM.create", "RBAC_PERMISSION_DENIED") in outcomes
    assert any(line["user"] == "olga" and line["address"].startswith("127.0.0.") for line in lines)
    assert "secret" not in json.dumps(lines) and not any("get_all" in m and o == "Success"
                                                         for m, o in outcomes if m[:2] == "VM")


def main():
    bad = 0
    start_pool()
    x = Session()
    until(20, lambda: len(x("host.get_allowed_operations", x.one("host", f"h{3 - x.host}"))),
          "the other host")
    for case in (case_envelopes, case_sessions, case_errors, case_records, case_power,
                 case_start_once, case_migrate, case_postcopy, case_migrate_fails,
                 case_xapid_killed, case_forged, case_stale_migration,
                 case_xen, case_evacuate,
                 case_forged_end, case_events,
                 case_command_line, case_database_gone, case_hostile, case_audit,
                 case_login_flood, case_takeover, case_hosts_role):
        name = case.__name__[5:].replace("_", "-")
        try:
            case(x)
            print(f"ok xapi/{name}", flush=True)
        except Exception as e:  # whatever it is, it is the case's
            at = e.__traceback__
            while at.tb_next and at.tb_next.tb_frame.f_code.co_filename == __file__:
                at = at.tb_next
            said = " ".join(f"{type(e).__name__} {e}".split())[:400]
            print(f"not ok xapi/{name}: line {at.tb_lineno}: {said}", flush=True)
            bad = 1
    sys.exit(bad)


main()
