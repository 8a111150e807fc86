"""What cell.sh asks of a cell at 10.0.0.2, as a program: cell_probe.py WHAT ARGUMENT...

traffic FILE runs until FILE.end exists: 50 connections that echo, one download without an
end, and a server for 50 connections of the guest's.  Its state is in FILE, as JSON."""
import asyncio
import json
import os
import socket
import sys
import time
import urllib.request

from cell_client import SHUTDOWN, Cell

GUEST = os.environ.get("CELL_GUEST", "10.0.0.2")
US = os.environ.get("CELL_US", "10.0.0.1")
CONNECTIONS = 50
PATTERN_BYTES, STEP = 65521, 7919


def pattern():
    """tools/cell/pattern.h"""
    x, out = 2463534242, bytearray()
    for _ in range(PATTERN_BYTES):
        x ^= x << 13 & 0xFFFFFFFF
        x ^= x >> 17
        x ^= x << 5 & 0xFFFFFFFF
        out.append(x >> 24)
    return bytes(out)


TWICE = pattern() * 2


def right(data, at, seed):
    """Whether 'data' is what lies at 'at' of the resource."""
    start = (at + seed * STEP) % PATTERN_BYTES
    while data:
        n = min(len(data), PATTERN_BYTES)
        if data[:n] != TWICE[start:start + n]:
            return False
        data, start = data[n:], (start + n) % PATTERN_BYTES
    return True


def http(path):
    with urllib.request.urlopen(f"http://{GUEST}{path}", timeout=20) as answer:
        return answer.read()


def get(size, seed="0"):
    data = http(f"/data/{size}?seed={seed}")
    assert len(data) == int(size), len(data)
    assert right(data, 0, int(seed)), "a byte differs"


def echo():
    data = os.urandom(300000)
    with socket.create_connection((GUEST, 7), timeout=20) as s:
        s.settimeout(20)
        for at in range(0, len(data), 10000):
            s.sendall(data[at:at + 10000])
            back = b""
            while len(back) < 10000:
                back += s.recv(10000 - len(back))
            assert back == data[at:at + 10000]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        for _ in range(10):
            s.sendto(data[:1400], (GUEST, 7))
            try:
                assert s.recv(2000) == data[:1400]
                return
            except TimeoutError:
                pass
    raise AssertionError("no datagram came back")


class Traffic:
    def __init__(self, path):
        self.path = path
        self.state = {"rounds": [0] * CONNECTIONS, "bytes": 0, "served": 0, "broken": ""}

    async def client(self, i):
        reader, writer = await asyncio.open_connection(GUEST, 7)
        n = 0
        while True:
            message = f"{i} {n} ".encode() * 20
            writer.write(message)
            back = await reader.readexactly(len(message))
            assert back == message, "an echo differs"
            n += 1
            self.state["rounds"][i] = n
            await asyncio.sleep(0.02)

    async def download(self):
        reader, writer = await asyncio.open_connection(GUEST, 80)
        writer.write(b"GET /data/100000000000?seed=5 HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        at = 0
        while True:
            data = await reader.read(65536)
            assert data, "the download ended"
            assert right(data, at, 5), "the download differs"
            at += len(data)
            self.state["bytes"] = at
            await asyncio.sleep(0.005)  # leaves the others some of the machine

    async def serve(self, reader, writer):
        self.state["served"] += 1
        while data := await reader.read(65536):
            writer.write(data)

    async def report(self):
        while not os.path.exists(self.path + ".end"):
            self.state["at"] = time.monotonic()
            with open(self.path + ".new", "w", encoding="utf-8") as f:
                json.dump(self.state, f)
            os.rename(self.path + ".new", self.path)
            await asyncio.sleep(0.05)

    async def run(self):
        server = await asyncio.start_server(self.serve, US, 9000, backlog=200)
        jobs = [self.client(i) for i in range(CONNECTIONS)] + [self.download()]
        jobs = [asyncio.ensure_future(j) for j in jobs]
        ask = asyncio.to_thread(http, f"/connect?to={US}:9000&n={CONNECTIONS}&ms=20")
        end = asyncio.ensure_future(self.report())
        await ask
        done, _ = await asyncio.wait(jobs + [end], return_when=asyncio.FIRST_COMPLETED)
        for job in done - {end}:
            self.state["broken"] += repr(job.exception()) + " "
        if end not in done:
            await asyncio.sleep(0.2)  # it is written down
        server.close()
        os._exit(0)


def read(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def busy(path):
    state = read(path)
    assert not state["broken"], state["broken"]
    assert min(state["rounds"]) > 3 and state["bytes"] > 100000, state
    assert state["served"] == CONNECTIONS, state


def alive(path):
    """All that went on before goes on now."""
    first = read(path)
    until = time.monotonic() + 20
    while True:
        now = read(path)
        assert not now["broken"], now["broken"]
        moved = all(b > a + 1 for a, b in zip(first["rounds"], now["rounds"]))
        if moved and now["bytes"] > first["bytes"]:
            return
        assert time.monotonic() < until, f"stands still: {now}"
        time.sleep(0.02)


def end(path):
    alive(path)
    with open(path + ".end", "w", encoding="utf-8"):
        pass


def guest(moves):
    http("/check")
    stats = json.loads(http("/stats"))
    assert stats["moves"] == int(moves), stats
    assert stats["dirty"]["written"] > 0 and stats["dirty"]["corrupt"] == 0, stats
    assert stats["peers"]["begun"] == CONNECTIONS and stats["peers"]["corrupt"] == 0, stats
    assert stats["peers"]["echoed"] > 0, stats


def runs(path, moves):
    """start and stop alternate, and each epoch is the next one."""
    with open(path, encoding="utf-8") as f:
        lines = [line.split() for line in f]
    assert len(lines) == 2 * int(moves) + 1, lines
    last = 0
    for i, (what, epoch, ns, _domid, _pid) in enumerate(lines):
        assert what == ("stop" if i % 2 else "start"), lines
        assert int(epoch) == i // 2 + 1 and int(ns) > last, lines
        last = int(ns)


def shutdown(*paths):
    for path in paths:
        try:
            cell = Cell(path)
        except OSError:
            continue
        cell.call(SHUTDOWN)
        until = time.monotonic() + 15
        while os.path.exists(path):
            assert time.monotonic() < until, "it does not end"
            time.sleep(0.05)
        return
    raise AssertionError("there is no cell")


if __name__ == "__main__":
    what, args = sys.argv[1], sys.argv[2:]
    if what == "traffic":
        asyncio.run(Traffic(*args).run())
    else:
        {"get": get, "echo": echo, "busy": busy, "alive": alive, "end": end, "guest": guest,
         "runs": runs, "shutdown": shutdown}[what](*args)
