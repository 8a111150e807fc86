#!/usr/bin/env python3
"""TCP endpoints for the smoke tests' guests.

usage: tcp_probe.py serve PORT...
       tcp_probe.py connect [--open ADDRESS/PORT ...] [--closed ADDRESS/PORT ...]
       tcp_probe.py hold CONTROL ADDRESS/PORT ...

serve    echoes on the ports, both families, until it is ended; says "ready".
connect  tries all at once: each --open one must answer within 20 s, no
         --closed one before all those have and two seconds have passed.
         Exit status 0 if so; else says which.
hold     keeps a connection to each, with a byte to and fro 20 times a second,
         and answers on the unix socket CONTROL: to a line of those that should
         live, with those that have echoed since, when all of the former have
         and two seconds have passed, or after a minute (TCP tries again later
         and later); says "ready" when all are up.
"""
import os
import select
import selectors
import socket
import sys
import time

PATIENCE_S = 20
QUIET_S = 2


def target(text):
    address, port = text.rsplit("/", 1)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setblocking(False)
    return s, (address, int(port))


def serve(ports):
    selector = selectors.DefaultSelector()
    for port in ports:
        s = socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
        selector.register(s, selectors.EVENT_READ, True)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.data:
                s, _ = key.fileobj.accept()
                s.setblocking(False)
                selector.register(s, selectors.EVENT_READ, False)
                continue
            try:
                data = key.fileobj.recv(65536)
                if data:
                    key.fileobj.send(data)
            except OSError:
                data = b""
            if not data:
                selector.unregister(key.fileobj)
                key.fileobj.close()


def echoed(s):
    """A connection counts when its byte has come back."""
    try:
        return s.recv(1) == b"x"
    except OSError:
        return False


def connect(want_open, want_closed):
    started = time.monotonic()
    pending, got, retry_at = {}, set(), {}

    def begin(text):
        s, address = target(text)
        s.connect_ex(address)
        pending[s] = [text, False]

    for text in want_open + want_closed:
        begin(text)
    while True:
        now = time.monotonic() - started
        missing = [t for t in want_open if t not in got]
        if (not missing and now >= QUIET_S) or now >= PATIENCE_S:
            break
        for text in [t for t, at in retry_at.items() if at <= now]:
            del retry_at[text]
            begin(text)
        reading = [s for s, (_, up) in pending.items() if up]
        writing = [s for s, (_, up) in pending.items() if not up]
        r, w, _ = select.select(reading, writing, [], 0.05)
        for s in w:
            if s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                retry_at[pending.pop(s)[0]] = now + 0.2
                s.close()
            else:
                s.send(b"x")
                pending[s][1] = True
        for s in r:
            text = pending.pop(s)[0]
            if echoed(s):
                got.add(text)
            else:
                retry_at[text] = now + 0.2
            s.close()
    wrong = [f"{t} does not answer" for t in want_open if t not in got]
    wrong += [f"{t} answers" for t in want_closed if t in got]
    print("; ".join(wrong))
    return bool(wrong)


def hold(control, targets):
    held = {}
    for text in targets:
        s, address = target(text)
        s.settimeout(PATIENCE_S)
        s.connect(address)
        s.setblocking(False)
        held[s] = text
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(control)
    listener.listen()
    print("ready", flush=True)
    asked, asker, wanted, seen = 0, None, set(), set()
    while True:
        r, _, _ = select.select([listener, *held], [], [], 0.05)
        now = time.monotonic()
        for s in list(held):
            try:
                # What was on the way before the question does not count.
                if s in r and s.recv(65536) and asker and now - asked > 0.5:
                    seen.add(held[s])
                s.send(b"x")
            except BlockingIOError:
                pass
            except OSError:
                del held[s]
        if listener in r:
            asker, _ = listener.accept()
            wanted = set(asker.recv(65536).decode().split())
            asked, seen = now, set()
        if asker and (now - asked > QUIET_S and wanted <= seen or now - asked > 60):
            asker.sendall(" ".join(sorted(seen)).encode())
            asker.close()
            asker = None


def main(args):
    if args[0] == "serve":
        serve(args[1:])
    if args[0] == "hold":
        hold(args[1], args[2:])
    lists = {"--open": [], "--closed": []}
    into = None
    for a in args[1:]:
        if a in lists:
            into = lists[a]
        else:
            into.append(a)
    return connect(lists["--open"], lists["--closed"])


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main(sys.argv[1:]))
