"""The traffic of flows.sh, and what collectors should have counted of it.

flows_traffic.py write PCAP       a capture to be replayed
flows_traffic.py scan IPV4 IPV6 [ANOTHER...]
    knocks at many TCP and UDP ports of two hosts, and pings all
flows_traffic.py check FORMAT v4|all FILE PCAP...
    compares packets and L3 bytes per 5-tuple with the captures'; FORMAT is
    nfdump (its csv), nfacctd (its csv), text (lines of
    "PROTO SRC SPORT DST DPORT PACKETS BYTES"), or weft5, weft9, weft10 (lines of
    JSON of weft-flowd: records of that protocol)
"""
import collections
import csv
import ipaddress
import json
import socket
import struct
import sys
import time

MAC = [bytes.fromhex("0200000000%02x" % i) for i in (1, 2)]
BRIDGE_MAC = bytes.fromhex("020000000099")
VXLAN, GENEVE = 4789, 6081
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
LATER = 1 << 13  # of a fragment's offset field: more fragments


def checksum(data):
    words = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while words >> 16:
        words = (words & 0xffff) + (words >> 16)
    return struct.pack("!H", 0xffff & ~words)


def eth(payload, kind, tags=(), to=MAC[1]):
    head = to + MAC[0]
    for tpid, vid in tags:
        head += struct.pack("!HH", tpid, vid)
    frame = head + struct.pack("!H", kind) + payload
    return frame.ljust(60, b"\0")  # short frames are padded: bytes that count nowhere


def ip4(src, dst, proto, payload, options=b"", frag=0):
    head = struct.pack("!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0,
                       20 + len(options) + len(payload), 7, frag, 64, proto, 0,
                       ipaddress.ip_address(src).packed,
                       ipaddress.ip_address(dst).packed) + options
    return head[:10] + checksum(head) + head[12:] + payload


def ip6(src, dst, proto, payload, label=0):
    return struct.pack("!IHBB16s16s", 6 << 28 | label, len(payload), proto, 64,
                       ipaddress.ip_address(src).packed, ipaddress.ip_address(dst).packed) + payload


def udp(sport, dport, n):
    return udp_of(sport, dport, b"u" * n)


def udp_of(sport, dport, payload):
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def tcp(sport, dport, flags, n=0):
    return struct.pack("!HHIIBBHHH", sport, dport, 1, 1, 0x50, flags, 1000, 0, 0) + b"t" * n


def frames():
    a, b, a6, b6 = "10.1.0.1", "10.1.0.2", "2001:db8::1", "2001:db8::2"
    for i in range(1, 41):  # flows of 1 to 40 packets, of many sizes
        for j in range(i):
            yield eth(ip4(a, b, UDP, udp(1000 + i, 53, 5 + j * 33)), 0x800)
    for flags, n in ((2, 0), (0x10, 0), (0x18, 700), (0x18, 1400), (0x11, 0)):
        yield eth(ip4(a, b, TCP, tcp(4000, 80, flags, n)), 0x800)
    for port in range(1, 301):  # a scan
        yield eth(ip4(a, b, TCP, tcp(5555, port, 2)), 0x800)
    for i in range(7):  # denied
        yield eth(ip4(a, b, TCP, tcp(4001, 9999, 2)), 0x800)
    for i in range(20):
        yield eth(ip6(a6, b6, UDP, udp(2000 + i % 4, 5353, 9 * i), label=i), 0x86dd)
        yield eth(ip6(a6, b6, TCP, tcp(3000, 443, 0x10, i)), 0x86dd)
    for i in range(9):
        yield eth(ip4(a, b, ICMP, struct.pack("!BBHHH", 8, 0, 0, 1, i) + b"p" * 56), 0x800)
        yield eth(ip6(a6, b6, ICMP6, struct.pack("!BBHHH", 128, 0, 0, 1, i) + b"p" * 40), 0x86dd)
    for i in range(4):  # fragments: the later ones have no ports
        yield eth(ip4(a, b, UDP, udp(6000, 6001, 1000), frag=LATER), 0x800)
        yield eth(ip4(a, b, UDP, b"f" * 700, frag=126), 0x800)
    for i in range(3):
        yield eth(ip4(a, b, UDP, udp(6002, 6003, 100), options=b"\x94\x04\0\0"), 0x800)
        yield eth(ip6(a6, b6, 0, b"\x11\0\x05\x02\0\0\1\0" + udp(6004, 6005, 60)), 0x86dd)
        yield eth(ip6(a6, b6, 44, struct.pack("!BBHI", 17, 0, 8 * 100, i) + b"f" * 80), 0x86dd)
    for i in range(11):
        yield eth(ip4(a, b, UDP, udp(7000, 7001, 200)), 0x800, [(0x8100, 30)])
        yield eth(ip4(a, b, UDP, udp(7002, 7003, 300)), 0x800, [(0x88a8, 40), (0x8100, 50)])
    for i in range(5):
        yield eth(struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, MAC[0],
                              ipaddress.ip_address(a).packed, b"\0" * 6,
                              ipaddress.ip_address(b).packed), 0x806)


def tunnelled():
    """Of two networks; what is in them has the same addresses."""
    for i in range(8):
        inner = eth(ip4("10.4.0.1", "10.4.0.2", UDP, udp(8000 + i % 2, 8001, 100 + i)), 0x800)
        inner6 = eth(ip6("2001:db8:4::1", "2001:db8:4::2", TCP, tcp(8002, 8003, 0x10, i)), 0x86dd)
        vxlan = struct.pack("!II", 0x08000000, (71 + i % 2) << 8)
        geneve = struct.pack("!BBHI", 2, 0, 0x6558, 73 << 8) + bytes.fromhex("0123000100000007")
        for port, head, frame in ((VXLAN, vxlan, inner), (VXLAN, vxlan, inner6),
                                  (GENEVE, geneve, inner), (GENEVE, geneve, inner6)):
            yield eth(ip4("10.3.0.9", "10.3.0.1", UDP, udp_of(9000 + i % 3, port, head + frame)),
                      0x800, to=BRIDGE_MAC)


def write(path):
    with open(path, "wb") as f:
        f.write(struct.pack("<IHHIIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
        for i, frame in enumerate([*frames(), *tunnelled()]):
            f.write(struct.pack("<IIII", 1000, i, len(frame), len(frame)) + frame)


def read(path):
    with open(path, "rb") as f:
        f.read(24)
        while head := f.read(16):
            yield f.read(struct.unpack("<IIII", head)[2])


def ports(proto, payload):
    if proto in (TCP, UDP):
        return struct.unpack("!HH", payload[:4])
    if proto in (ICMP, ICMP6):
        return 0, payload[0] << 8 | payload[1]
    return 0, 0


def inner(proto, dport, l4):
    if proto == UDP and dport == VXLAN:
        return l4[16:]
    if proto == UDP and dport == GENEVE:
        return l4[16 + (l4[8] & 63) * 4:]
    return b""


def flow(frame):
    """(5-tuple, L3 bytes, the frame that a tunnel has in it or b""); None if it is not IP."""
    at = 12
    while frame[at:at + 2] in (b"\x81\0", b"\x88\xa8"):
        at += 4
    kind, l3 = frame[at:at + 2], frame[at + 2:]
    if kind == b"\x08\0":
        total, frag = struct.unpack("!HxxH", l3[2:8])
        proto, head = l3[9], (l3[0] & 15) * 4
        sport, dport = (0, 0) if frag & 0x1fff else ports(proto, l3[head:])
        return (proto, str(ipaddress.ip_address(l3[12:16])), sport,
                str(ipaddress.ip_address(l3[16:20])), dport), total, inner(proto, dport, l3[head:])
    if kind != b"\x86\xdd":
        return None
    proto, at, later = l3[6], 40, False
    while proto in (0, 44):
        later |= proto == 44 and struct.unpack("!H", l3[at + 2:at + 4])[0] & 0xfff8 != 0
        proto, at = l3[at], at + 8
    sport, dport = (0, 0) if later else ports(proto, l3[at:])
    return (proto, str(ipaddress.ip_address(l3[8:24])), sport,
            str(ipaddress.ip_address(l3[24:40])), dport), 40 + struct.unpack("!H", l3[4:6])[0], b""


def counts(destination):
    """Not what the kernel multicasts for itself, whenever it likes."""
    return not ipaddress.ip_address(destination).is_multicast


def expected(paths, family):
    sums = collections.defaultdict(lambda: [0, 0])
    for path in paths:
        for frame in read(path):
            while frame and (found := flow(frame)):
                key, size, frame = found
                if counts(key[3]) and (family == "all" or ":" not in key[1]):
                    sums[key][0] += 1
                    sums[key][1] += size
    return dict(sums)


def knock(kind, address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as s:
        s.setblocking(False)
        if s.connect_ex((address, port)) == 0 and kind == socket.SOCK_DGRAM:
            s.send(b"knock")


def ping(address, sequence):
    six = ":" in address
    with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW,
                       ICMP6 if six else ICMP) as s:
        message = struct.pack("!BBHHH", 128 if six else 8, 0, 0, 99, sequence) + b"p" * 24
        if not six:  # of ICMPv6 the kernel makes it
            message = message[:2] + checksum(message) + message[4:]
        s.sendto(message, (address, 0))


def scan(four, six, *others):
    for i in range(1, 201):  # paced: a switch's socket holds some 250 frames
        for address in (four, six):
            knock(socket.SOCK_STREAM, address, i)
            if i % 4 == 0:
                knock(socket.SOCK_DGRAM, address, 30000 + i)
        time.sleep(0.008)
    for i, address in enumerate((four, six, *others)):
        ping(address, i)
    return 0


def send(device, port, vlan="", vni=""):
    """A UDP packet of a flow of its own, in a VLAN, or in VXLAN to the bridge."""
    tags = ((0x8100, int(vlan)),) if vlan else ()
    sport = 1024 + time.monotonic_ns() // 1000 % 60000
    frame = eth(ip4("10.9.0.1", "10.9.0.2", UDP, udp(sport, int(port), 8)), 0x800, tags)
    if vni:
        head = struct.pack("!II", 0x08000000, int(vni) << 8)
        frame = eth(ip4("10.3.0.9", "10.3.0.1", UDP, udp_of(sport, VXLAN, head + frame)), 0x800,
                    to=BRIDGE_MAC)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((device, 0))
        raw.send(frame)
    return 0


PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "ipv6-icmp": ICMP6, "icmp6": ICMP6}


def number(proto):
    return PROTOCOLS.get(proto.lower()) or int(proto)


def rows(kind, path):
    with open(path, encoding="ascii") as f:
        if kind == "text":
            for line in f:
                p, s, sp, d, dp, n, size = line.split()
                yield number(p), s, int(sp), d, int(dp), int(n), int(size)
        elif kind.startswith("weft"):
            for r in map(json.loads, f):
                if r["protocol"] == int(kind[4:]) and "src" in r:
                    yield (r.get("proto", 0), r["src"], r.get("sport", 0), r["dst"],
                           r.get("dport", 0), r["packets"], r["bytes"])
        elif kind == "nfacctd":
            for r in csv.DictReader(f):
                yield (number(r["PROTOCOL"]), r["SRC_IP"], int(r["SRC_PORT"]), r["DST_IP"],
                       int(r["DST_PORT"]), int(r["PACKETS"]), int(r["BYTES"]))
        else:
            for line in f:
                if line.count(",") != 6:
                    continue
                p, s, sp, d, dp, n, size = (x.strip() for x in line.split(","))
                major, _, minor = dp.partition(".")
                port = int(major) << 8 | int(minor) if minor else int(major)
                yield number(p), s, int(sp), d, port, int(n), int(size)


def check(kind, family, path, *pcaps):
    sums = collections.defaultdict(lambda: [0, 0])
    for p, s, sp, d, dp, n, size in rows(kind, path):
        if p == 0 or not counts(d):
            continue
        key = (p, str(ipaddress.ip_address(s)), sp, str(ipaddress.ip_address(d)), dp)
        sums[key][0] += n
        sums[key][1] += size
    want, wrong = expected(pcaps, family), 0
    for key in sorted(set(sums) | set(want)):
        if list(sums.get(key, (0, 0))) != list(want.get(key, (0, 0))):
            wrong += 1
            if wrong < 8:
                print(key, "counted", sums.get(key), "expected", want.get(key))
    print(f"{len(want)} 5-tuples, {wrong} wrong")
    return wrong != 0 or not want


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2])
    elif sys.argv[1] == "scan":
        sys.exit(scan(*sys.argv[2:]))
    elif sys.argv[1] == "send":
        sys.exit(send(*sys.argv[2:]))
    else:
        sys.exit(check(*sys.argv[2:]))
