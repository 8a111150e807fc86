#!/usr/bin/env python3
"""Rates, copies and tags of packets, for pool_ports.sh and pool_lab.sh.

send ADDRESS PORT KBPS SECONDS      datagrams of 1,000 bytes at this rate of frames
rate PORT                           kbit/s of frames in 1.5 s, half a second after the first
sniff DEVICE SECONDS KIND [N]       succeeds when it has seen N (3) frames: icmp, gre, erspan or
                                    the number of a VLAN (pings with that tag)
echo DEVICE TAG MAC ADDRESS         answers ARP and pings to the address, as a guest's VLAN
                                    device would
ping DEVICE TAG MAC ADDRESS TO SECONDS  is answered, with the tag
"""
import contextlib
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


def checksum(data):
    n = sum(struct.unpack(f"!{len(data) // 2}H", data))
    n = (n >> 16) + (n & 0xFFFF)
    return ~(n + (n >> 16)) & 0xFFFF


class Vlan:
    """One tag of a device, an address and a MAC behind it."""

    def __init__(self, device, tag, mac, address):
        self.mac, self.ip = bytes.fromhex(mac.replace(":", "")), socket.inet_aton(address)
        self.tag = int(tag)
        self.s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.s.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.s.bind((device, 0))

    def send(self, to, ethertype, body):
        tag = struct.pack("!HH", 0x8100, self.tag)
        self.s.send(to + self.mac + tag + struct.pack("!H", ethertype) + body)

    def arp(self, op, mac, ip):
        body = struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, op, self.mac, self.ip, mac, ip)
        self.send(mac if any(mac) else b"\xff" * 6, 0x806, body)

    def icmp(self, kind, mac, ip, rest=b"weft"):
        text = struct.pack("!BBH", kind, 0, 0) + rest
        text = text[:2] + struct.pack("!H", checksum(text)) + text[4:]
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(text), 1, 0, 64, 1, 0, self.ip, ip)
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        self.send(mac, 0x800, head + text)

    def receive(self, seconds):
        """(MAC, address, "arp" or ICMP type or None, the rest) of a frame with the tag for us."""
        self.s.settimeout(max(seconds, 0.001))
        frame, aux, _, _ = self.s.recvmsg(2000, 100)
        status, _, _, _, _, tci, _ = struct.unpack("IIIHHHH", aux[0][2][:20])
        if not status & TP_STATUS_VLAN_VALID or tci & 0xFFF != self.tag:
            return None, None, None, b""
        if frame[12:14] == b"\x08\x06" and frame[38:42] == self.ip:
            return frame[22:28], frame[28:32], "arp" if frame[21] == 1 else "is-at", b""
        if frame[12:14] == b"\x08\x00" and frame[23] == 1 and frame[30:34] == self.ip:
            end = 14 + struct.unpack("!H", frame[16:18])[0]
            return frame[6:12], frame[26:30], frame[34], frame[38:end]
        return None, None, None, b""


def echo(device, tag, mac, address):
    v = Vlan(device, tag, mac, address)
    print("ready", flush=True)
    while True:
        with contextlib.suppress(TimeoutError):
            who, ip, kind, rest = v.receive(10)
            if kind == "arp":
                v.arp(2, who, ip)
            elif kind == 8:
                v.icmp(0, who, ip, rest)


def ping(device, tag, mac, address, to, seconds):
    v = Vlan(device, tag, mac, address)
    end, to_mac, to_ip = time.monotonic() + float(seconds), None, socket.inet_aton(to)
    while time.monotonic() < end:
        if to_mac:
            v.icmp(8, to_mac, to_ip, b"\0\1\0\1weft")
        else:
            v.arp(1, bytes(6), to_ip)
        again = time.monotonic() + 0.3
        with contextlib.suppress(TimeoutError):
            while (left := again - time.monotonic()) > 0:
                who, ip, kind, _ = v.receive(left)
                if kind == "is-at" and ip == to_ip:
                    to_mac = who
                    break
                if kind == "arp":
                    v.arp(2, who, ip)
                if kind == 0 and ip == to_ip:
                    return
    sys.exit(f"{to} does not answer{'' if to_mac else ' ARP'}")


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


{"send": send, "rate": rate, "sniff": sniff, "echo": echo, "ping": ping}[sys.argv[1]](*sys.argv[2:])
