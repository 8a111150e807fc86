#!/usr/bin/env python3
"""Writes numbered rows into a pool and notes those that were acknowledged.

usage: pool_writer.py rest SOCKET,... PREFIX ACKED
       pool_writer.py ovsdb IP:PORT,... PREFIX ACKED KEY CERTIFICATE CA

Ends with SIGTERM.  A number whose answer did not come is not written again
under "rest"; under "ovsdb" it is tried until it is known to be there, once.
Each row is a tenant PREFIXn; under "ovsdb" the same transaction counts it in
policy_epoch of the network "counter".
"""
import http.client
import json
import signal
import socket
import ssl
import sys
import time

mode, where, prefix, acked_name = sys.argv[1:5]
places = where.split(",")
acked = open(acked_name, "a", encoding="ascii")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def note(number):
    acked.write(f"{prefix}{number}\n")
    acked.flush()


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=4)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(4)
        self.sock.connect(self.path)


def rest():
    number, at = 0, 0
    while True:
        number += 1
        try:
            c = Unix(places[at % len(places)])
            body = json.dumps({"name": f"{prefix}{number}"})
            c.request("POST", "/v1/tenants", body, {"Content-Type": "application/json"})
            status = c.getresponse().status
            c.close()
            if status // 100 == 2:
                note(number)
            else:
                at += 1
                time.sleep(0.1)
        except (OSError, http.client.HTTPException):
            at += 1
            time.sleep(0.1)
        time.sleep(0.01)


class Server:
    """One connection; an OSError ends it."""

    def __init__(self, place):
        ip, port = place.rsplit(":", 1)
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=sys.argv[7])
        context.check_hostname = False
        context.load_cert_chain(sys.argv[6], sys.argv[5])
        raw = socket.create_connection((ip, int(port)), timeout=2)
        raw.settimeout(3)
        self.sock = context.wrap_socket(raw)
        self.rest = ""

    def call(self, method, params):
        self.sock.sendall(json.dumps({"id": 1, "method": method, "params": params}).encode())
        decoder = json.JSONDecoder()
        while True:
            try:
                message, end = decoder.raw_decode(self.rest)
                self.rest = self.rest[end:].lstrip()
            except ValueError:
                data = self.sock.recv(65536)
                if not data:
                    raise OSError("closed") from None
                self.rest += data.decode()
                continue
            if message.get("method") == "echo":
                reply = {"id": message["id"], "result": message["params"], "error": None}
                self.sock.sendall(json.dumps(reply).encode())
            elif "result" in message:
                if message.get("error"):
                    raise OSError(str(message["error"]))
                return message["result"]

    def add(self, name):
        """True: it is there, acknowledged."""
        pool = {"op": "wait", "timeout": 0, "table": "Pool", "where": [], "columns": ["closed"],
                "until": "==", "rows": [{"closed": False}]}
        insert = {"op": "insert", "table": "Tenant", "row": {"name": name}}
        count = {"op": "mutate", "table": "Network", "where": [["name", "==", "counter"]],
                 "mutations": [["policy_epoch", "+=", 1]]}
        answer = self.call("transact", ["Weft_Pool", pool, insert, count])
        errors = [a for a in answer if a and "error" in a]
        if errors and errors[0]["error"] == "constraint violation":
            return True  # from before, when no answer came
        if errors:
            raise OSError(str(errors))
        return True


def ovsdb():
    number, at, server = 1, 0, None
    while True:
        try:
            if not server:
                server = Server(places[at % len(places)])
            if server.add(f"{prefix}{number}"):
                note(number)
                number += 1
            time.sleep(0.004)
        except OSError:
            server = None
            at += 1
            time.sleep(0.05)


rest() if mode == "rest" else ovsdb()
