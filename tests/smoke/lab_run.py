"""lab_run.py FAULT WEFT: "weft lab traffic" with five connections to a server here, which
serves what weft-cell does, but for the fault: none, or echo, close (of the third
connection), download (its byte 1000000).  Ends it when a line has told of it."""
import asyncio
import re
import signal
import subprocess
import sys

from cell_probe import PATTERN_BYTES, STEP, TWICE

FAULT, WEFT = sys.argv[1:]
SEED = 5


class Server:
    n = 0

    async def echo(self, reader, writer):
        self.n += 1
        bad, rounds = self.n == 3, 0
        while data := await reader.read(65536):
            rounds += 1
            if bad and rounds > 3 and FAULT == "close":
                break
            if bad and rounds > 3 and FAULT == "echo":
                data = data[:-1] + bytes([data[-1] ^ 1])
            writer.write(data)
        writer.close()

    async def download(self, reader, writer):
        request = await reader.readuntil(b"\r\n\r\n")
        assert request.startswith(b"GET /data/") and b"seed=5 " in request, request
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000000\r\n\r\n")
        at = 0
        while True:
            start = (at + SEED * STEP) % PATTERN_BYTES
            data = bytearray(TWICE[start:start + 10000])
            if FAULT == "download" and at == 1000000:
                data[0] ^= 1
            writer.write(data)
            try:
                await writer.drain()
            except ConnectionError:
                return
            at += len(data)


async def main():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    server = Server()
    await asyncio.start_server(server.echo, "127.0.0.1", 7)
    await asyncio.start_server(server.download, "127.0.0.1", 80)
    process = await asyncio.create_subprocess_exec(
        WEFT, "lab", "traffic", "--connections", "5", "127.0.0.1", stdout=subprocess.PIPE)
    async for line in process.stdout:
        print(line.decode(), end="", flush=True)
        enough = re.search(rb": 0 broken, ([2-9]|\d\d+) MB" if FAULT == "none" else rb" 1 broken",
                           line)
        if enough:
            process.send_signal(signal.SIGTERM)
            break
    await process.stdout.read()
    return await process.wait()


sys.exit(asyncio.run(main()))
