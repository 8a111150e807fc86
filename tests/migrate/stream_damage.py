#!/usr/bin/python3
"""Damages captured streams in every way and sees that the reader notices.

usage: stream_damage.py DIR MEMORY

DIR as stream_read.py has it, of a whole migration; MEMORY is the file with the guest's
memory at its end.  A damaged stream must break a rule, or make the same memory all the
same: a page that is sent again later may be torn.  One line a case, as all tests print.
"""

import random
import struct
import sys

from stream_read import PAGE, Violation, check, load
from xxh3 import xxh3


def outcome(files, memory):
    """The rule that is broken, "same", or None: another memory and nobody noticed."""
    try:
        made, _ = check(files)
    except Violation as rule:
        return str(rule)
    whole = b"".join(made.pages.get(p, bytes(PAGE)) for p in range(made.n_pages))
    return "same" if whole == memory else None


def split(data):
    """Hello and records (head without sequence and check, body)."""
    out, at = [], 128
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        out.append((kind, data[at + 16 : at + 16 + length]))
        at += 16 + length
    return data[:128], out


def join(hello, records):
    """The opposite, with sequences and checks as a sender that means it would have them."""
    out = [hello]
    for sequence, (kind, body) in enumerate(records):
        head = struct.pack("<III", kind, len(body), sequence)
        covered = body[: 24 * (struct.unpack_from("<I", body)[0] + 1)] if kind == 3 else body
        if kind == 19:
            body = covered = struct.pack("<II", sequence, 0)
        out.append(head + struct.pack("<I", (xxh3(head) ^ xxh3(covered)) & 0xFFFFFFFF) + body)
    return b"".join(out)


class Cases:
    def __init__(self, files, memory):
        self.files, self.memory, self.failed = files, memory, False
        self.rules, self.name, self.bad, self.tried = set(), None, None, 0

    def case(self, name):
        self.end()
        self.name, self.bad, self.tried = name, None, 0

    def end(self):
        if self.name:
            fine = self.bad is None and self.tried
            print(f"ok {self.name}" if fine else f"not ok {self.name}: {self.bad or 'nothing was tried'}")
            self.failed |= not fine

    def expect(self, where, data, note, may_be_same=False):
        """With the bytes of one direction changed, a rule must break."""
        found = outcome({**self.files, where: data}, self.memory)
        self.tried += 1
        if found is None or (found == "same" and not may_be_same):
            self.bad = self.bad or f"{note} of {where}: {found or 'not noticed'}"
        self.rules.add(found)


def flips(cases, rng):
    cases.case("a flipped bit is noticed, or does no harm")
    for where, data in cases.files.items():
        for at in [*range(0, 128, 11), *(rng.randrange(128, len(data)) for _ in range(12))]:
            damaged = bytearray(data)
            damaged[at] ^= 1 << rng.randrange(8)
            cases.expect(where, bytes(damaged), f"bit at {at}", may_be_same=True)


def cuts(cases, rng):
    cases.case("a stream that ends early is noticed")
    for where, data in cases.files.items():
        for at in (100, 128, len(data) - 1, len(data) - 24, rng.randrange(128, len(data) - 23)):
            cases.expect(where, data[:at], f"cut at {at}")


def orders(cases, rng):
    cases.case("records lost, doubled or exchanged are noticed by their sequence")
    for where, data in cases.files.items():
        _, records = split(data)
        ends = [128]
        for _, body in records:
            ends.append(ends[-1] + 16 + len(body))
        if len(records) < 2:
            continue
        i = rng.randrange(len(records) - 1)
        a, b, c = ends[i : i + 3]
        cases.expect(where, data[:a] + data[b:], f"record {i} lost")
        cases.expect(where, data[:b] + data[a:b] + data[b:], f"record {i} doubled")
        cases.expect(where, data[:a] + data[b:c] + data[a:b] + data[c:], f"record {i} late")

    cases.case("pages lost, doubled or late are noticed though sequence and check are right")
    for where, data in cases.files.items():
        hello, records = split(data)
        for i in [i for i, (kind, _) in enumerate(records) if kind == 3][:3]:
            others = records[:i] + records[i + 1 :]
            cases.expect(where, join(hello, others), f"pages {i} lost")
            cases.expect(where, join(hello, records[: i + 1] + records[i:]), f"pages {i} doubled")
            cases.expect(where, join(hello, others[:-1] + [records[i]] + others[-1:]), f"pages {i} late")

    cases.case("control records lost or doubled are noticed though sequence and check are right")
    for where in (("S", 0), ("D", 0)):
        hello, records = split(cases.files[where])
        for i, (kind, _) in enumerate(records):
            if kind & 0x7FFFFFFF in (1, 4, 7, 11, 12, 19) or where[0] == "D" and kind in (13, 18):
                if kind != 13 or where[0] == "S":
                    cases.expect(where, join(hello, records[:i] + records[i + 1 :]), f"type {kind} lost")
                if kind not in (13, 18):
                    cases.expect(where, join(hello, records[: i + 1] + records[i:]), f"type {kind} doubled")


def strangers(cases):
    cases.case("a connection of another place, migration or epoch is noticed")
    first = cases.files["S", 0]
    for at in (8, 12, 16, 20, 22, 24, 40, 56, 64, 72, 80, 88, 96):
        damaged = bytearray(first)
        damaged[at] ^= 1
        cases.expect(("S", 0), bytes(damaged), f"hello byte {at}")
    cases.expect(("S", 0), cases.files["D", 0], "the other direction")
    if ("S", 1) in cases.files:
        cases.expect(("S", 1), first, "connection 0")

    cases.case("an unknown mandatory record ends it, an optional one is skipped")
    hello, records = split(first)
    cases.expect(("S", 0), join(hello, records[:1] + [(99, b"x")] + records[1:]), "type 99")
    found = outcome({**cases.files, ("S", 0): join(hello, records[:1] + [(99 | 1 << 31, b"x")] + records[1:])},
                    cases.memory)
    if found != "same":
        cases.bad = f"optional: {found}"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[2], "rb") as f:
        cases = Cases(load(sys.argv[1]), f.read())
    rng = random.Random(1)
    cases.case("the captured streams keep the document's rules and make the guest's memory")
    cases.tried = 1
    whole = outcome(cases.files, cases.memory)
    if whole != "same":
        cases.bad = whole or "another memory"
    else:
        flips(cases, rng)
        cuts(cases, rng)
        orders(cases, rng)
        strangers(cases)
    cases.end()
    sys.exit(cases.failed)


if __name__ == "__main__":
    main()
