#!/usr/bin/env python3
"""Rates and copies of packets, for pool_ports.sh.

send ADDRESS PORT KBPS SECONDS      datagrams of 1,000 bytes at this rate of frames
rate PORT                           kbit/s of frames in 1.5 s, half a second after the first
sniff DEVICE SECONDS KIND [N]       succeeds when it has seen N (3) frames: icmp, gre, erspan or
                                    the number of a VLAN (pings with that tag)
"""
import socket
import struct
import sys
import time

FRAME = 1042  # with headers of UDP, IPv4 and Ethernet
SOL_PACKET, PACKET_AUXDATA = 263, 8
TP_STATUS_VLAN_VALID = 1 << 4


def send(address, port, kbps, seconds):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    per_s = int(kbps) * 1000 / 8 / FRAME
    start, n = time.monotonic(), 0
    while (now := time.monotonic() - start) < float(seconds):
        while n < now * per_s:
            s.sendto(bytes(1000), (address, int(port)))
            n += 1
        time.sleep(0.001)


def rate(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", int(port)))
    s.settimeout(10)
    print("ready", flush=True)
    s.recv(2000)
    first, n = time.monotonic(), 0
    while (now := time.monotonic() - first) < 2:
        s.recv(2000)
        n += now >= 0.5
    print(round(n * FRAME * 8 / 1.5 / 1000))


def matches(kind, frame, vlan):
    if len(frame) < 34 or frame[12:14] != b"\x08\x00":
        return False
    if kind == "gre":
        return frame[23] == 47 and frame[36:38] == b"\x65\x58"
    if kind == "erspan":
        return frame[23] == 47 and frame[36:38] == b"\x88\xbe"
    return frame[23] == 1 and vlan == (int(kind) if kind.isdigit() else None)


def sniff(device, seconds, kind, count="3"):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    s.bind((device, 0))
    print("ready", flush=True)
    end, n = time.monotonic() + float(seconds), 0
    while (left := end - time.monotonic()) > 0 and n < int(count):
        s.settimeout(left)
        try:
            frame, aux, _, _ = s.recvmsg(200, 64)
        except TimeoutError:
            break
        vlan = None
        for _, _, data in aux:
            status, _, _, _, _, tci, _ = struct.unpack("IIIHHHH", data[:20])
            vlan = tci & 0xFFF if status & TP_STATUS_VLAN_VALID else None
        n += matches(kind, frame, vlan)
    print(n)
    sys.exit(n < int(count))


{"send": send, "rate": rate, "sniff": sniff}[sys.argv[1]](*sys.argv[2:])
