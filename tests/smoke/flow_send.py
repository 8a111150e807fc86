"""Flow records as an exporter sends them.

    flow_send.py PORT FROM ipfix|v5 < RECORDS

A line of RECORDS is fields: src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 proto=6
packets=3 bytes=100 age=SECONDS, and for IPFIX vlan, in_if, forwarding, rule_in,
rule_out, network, in_vif, out_vif, drop.  FROM is the exporter's address."""
import ipaddress
import socket
import struct
import sys
import time

WEFT = 0x57454654
# Field: element, length, enterprise.
FIELDS = {
    "src": (8, 4, 0), "dst": (12, 4, 0), "sport": (7, 2, 0), "dport": (11, 2, 0),
    "proto": (4, 1, 0), "packets": (2, 8, 0), "bytes": (1, 8, 0), "start": (152, 8, 0),
    "end": (153, 8, 0), "vlan": (58, 2, 0), "in_if": (10, 4, 0), "forwarding": (89, 1, 0),
    "rule_out": (1, 4, WEFT), "rule_in": (2, 4, WEFT), "network": (3, 4, WEFT),
    "in_vif": (4, 4, WEFT), "out_vif": (5, 4, WEFT), "drop": (6, 2, WEFT),
}


def record(line, now_ms):
    fields = dict(word.split("=") for word in line.split())
    r = {name: int(v) for name, v in fields.items() if name not in ("src", "dst")}
    for name in ("src", "dst"):
        r[name] = int(ipaddress.IPv4Address(fields[name]))
    r["end"] = now_ms - r.get("age", 0) * 1000
    r["start"] = r["end"] - 500
    return r


def ipfix(records):
    template = b""
    for element, length, enterprise in FIELDS.values():
        template += struct.pack("!HH", element | (0x8000 if enterprise else 0), length)
        template += struct.pack("!I", enterprise) if enterprise else b""
    template = struct.pack("!HH", 256, len(FIELDS)) + template
    data = b"".join(r.get(name, 0).to_bytes(f[1], "big") for r in records
                    for name, f in FIELDS.items())
    body = struct.pack("!HH", 2, 4 + len(template)) + template
    body += struct.pack("!HH", 256, 4 + len(data)) + data
    return struct.pack("!HHIII", 10, 16 + len(body), int(time.time()), 0, 1) + body


def v5(records, now_ms):
    uptime = 10 ** 6
    body = b""
    for r in records:
        ages = [uptime - (now_ms - r[name]) for name in ("start", "end")]
        body += struct.pack("!IIIHHIIIIHHBBBBHHBBH", r["src"], r["dst"], 0, r.get("in_if", 0), 0,
                            r["packets"], r["bytes"], *ages, r["sport"], r["dport"], 0, 0,
                            r["proto"], 0, 0, 0, 0, 0, 0)
    head = struct.pack("!HHIIIIBBH", 5, len(records), uptime, now_ms // 1000,
                       now_ms % 1000 * 10 ** 6, 0, 0, 0, 0)
    return head + body


def main():
    port, source, kind = sys.argv[1:]
    now_ms = int(time.time() * 1000)
    records = [record(line, now_ms) for line in sys.stdin if line.strip()]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind((source, 0))
        s.sendto(v5(records, now_ms) if kind == "v5" else ipfix(records),
                 ("127.0.0.1", int(port)))


main()
