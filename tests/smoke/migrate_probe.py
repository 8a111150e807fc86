"""Tries a cell all the time, as a program: migrate_probe.py GUEST FILE

Datagrams to its echo port, and connections to its web server, each given up after a
while; ends when FILE.end exists.  FILE then holds what was tried and what was answered,
as JSON; "how" has the connections' answers by name: which error, if any."""
import collections
import errno
import json
import os
import select
import socket
import sys
import time

GUEST, PATH = sys.argv[1:]
EVERY = 0.005  # seconds
PATIENCE = 0.3  # for a connection


def dial():
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        s.connect((GUEST, 80))
    except BlockingIOError:
        pass
    return s


def main():
    seen = {"datagrams": 0, "echoes": 0, "connections": 0, "connected": 0,
            "how": collections.Counter()}
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    udp.connect((GUEST, 7))
    tcp, until = dial(), time.monotonic() + PATIENCE
    while not os.path.exists(PATH + ".end"):
        try:
            udp.send(b"may I?")
            seen["datagrams"] += 1
            seen["echoes"] += len(udp.recv(100)) > 0
        except OSError:
            pass
        # Writable is connected or refused, an answer in either case, or without a neighbour:
        # while the cell was silent, this host gave up asking for its address.
        answered = select.select([], [tcp], [], 0)[1]
        if answered or time.monotonic() > until:
            seen["connections"] += 1
            if answered:
                error = tcp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                seen["connected"] += error != errno.EHOSTUNREACH
                seen["how"][errno.errorcode.get(error, "connected")] += 1
            tcp.close()
            tcp, until = dial(), time.monotonic() + PATIENCE
        time.sleep(EVERY)
    with open(PATH, "w", encoding="utf-8") as f:
        json.dump(seen, f)


main()
