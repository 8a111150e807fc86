#!/usr/bin/python3
"""Checks captured migration streams against docs/migration-stream.md.

usage: stream_read.py [--memory FILE] [--cut] DIR

DIR has connI.source and connI.destination for each connection I: what that end
sent over it, after TLS.  The guest's memory is rebuilt from them and can be written to FILE.
Exits with 0 and a summary, or with 1 and the first rule that is broken.
With --cut, streams may end anywhere (what is there is checked).

Written from the document alone, so that writer and document are checked against
each other: knows nothing of the C code.  zstd frames are decoded by zstd(1).
"""

import os
import struct
import subprocess
import sys

from xxh3 import M64, xxh3

PAGE = 4096
ZERO, RAW, DELTA, LZ4, ZSTD = 1, 2, 3, 4, 5
EXACT, POSTCOPY = 1, 2
SOURCE, TLS, CHUNKS, REFUSED = 1, 2, 4, 8
MAX_PAGES = 1054744
MAX_PFN = 1 << 36

#        type: name, optional, from, least, most
TYPES = {
    1: ("CONFIG", 0, "S", 24, 4120),
    2: ("ACCEPT", 0, "D", 8, 8),
    3: ("PAGES", 0, "S", 48, MAX_PAGES),
    4: ("BARRIER", 0, "S", 16, 16),
    5: ("ROUND", 0, "S", 16, 16),
    6: ("CHUNK", 0, "S", 9, 1048584),
    7: ("STATE", 0, "S", 17, 1048592),
    8: ("NETWORK", 1, "S", 17, 1048592),
    9: ("LATE", 1, "S", 1, 65600),
    10: ("PENDING", 0, "S", 8, 65544),
    11: ("FINAL", 0, "S", 48, 48),
    12: ("READY", 0, "D", 24, 24),
    13: ("COMMITTED", 0, "SD", 8, 8),
    14: ("ABORT", 0, "SD", 4, 516),
    15: ("REQUEST", 0, "D", 8, 2048),
    16: ("PLACED", 0, "D", 24, 24),
    17: ("CLOCK", 1, "SD", 32, 32),
    18: ("RUNNING", 0, "D", 16, 16),
    19: ("END", 0, "SD", 8, 8),
    20: ("ARRIVED", 1, "D", 8, 1416),
}
ANY_CONNECTION = {"PAGES", "CHUNK", "BARRIER", "END"}


class Violation(Exception):
    """A rule of the document that the stream breaks."""


def must(holds, rule):
    if not holds:
        raise Violation(rule)


class Record:
    def __init__(self, name, body, where):
        self.name, self.body, self.where = name, body, where


# --- one direction of one connection -----------------------------------------------------


class Hello:
    def __init__(self, b):
        must(b[:8] == b"WEFTMIG\n", "hello: magic")
        (version, length, self.flags, self.index, self.n) = struct.unpack_from("<IIIHH", b, 8)
        must(version == 1, "hello: version")
        must(length == 128, "hello: length")
        must(self.flags < 16, "hello: flags")
        must(not (self.flags & SOURCE and self.flags & REFUSED), "hello: the source refuses")
        must(1 <= self.n <= 64 and self.index < self.n, "hello: connections")
        self.migration, self.vm = b[24:40], b[40:56]
        self.epoch, self.pages, *self.key = struct.unpack_from("<QQQQ", b, 56)
        if self.flags & CHUNKS:
            must(self.pages == 0, "hello: pages of a stream driver")
        else:
            must(1 <= self.pages <= MAX_PFN, "hello: pages")
        must(not any(b[88:96]), "hello: reserved")
        must(self.flags & TLS or not any(b[96:128]), "hello: binder without TLS")


def read_direction(data, end, label, may_cut):
    """Hello and records of one file, their heads checked."""
    must(len(data) >= 128, f"{label}: hello is cut")
    hello, records, at = Hello(data[:128]), [], 128
    must(bool(hello.flags & SOURCE) == (end == "S"), f"{label}: hello from the other end")
    while at < len(data):
        where = f"{label} record {len(records)}"
        must(not records or records[-1].name != "END", f"{where}: behind END")
        if len(data) - at < 16:
            must(may_cut, f"{where}: head is cut")
            return hello, records
        kind, length, sequence, check = struct.unpack_from("<IIII", data, at)
        optional, kind = kind >> 31, kind & 0x7FFFFFFF
        must(sequence == len(records), f"{where}: sequence")
        name, is_optional, ends, least, most = TYPES.get(kind, ("?", 1, "SD", 0, MAX_PAGES))
        must(optional == is_optional, f"{where}: {name} {kind} optional or not")
        must(end in ends, f"{where}: {name} from the wrong end")
        must(least <= length <= most, f"{where}: length of {name}")
        body = data[at + 16 : at + 16 + length]
        if len(body) < length:
            must(may_cut, f"{where}: {name} is cut")
            return hello, records
        covered = body
        if name == "PAGES":
            covered = body[: 24 * (struct.unpack_from("<I", body)[0] + 1)]
        must((xxh3(data[at : at + 12]) ^ xxh3(covered)) & 0xFFFFFFFF == check, f"{where}: check of {name}")
        records.append(Record(name, body, where))
        at += 16 + length
    must(may_cut or (records and records[-1].name in ("END", "ABORT")), f"{label}: cut, no END")
    return hello, records


# --- pages ------------------------------------------------------------------------------------


def lz4_block(b):
    """The 4096 bytes of an LZ4 block."""
    out, at = bytearray(), 0

    def extended(n, at):
        while True:
            must(at < len(b), "LZ4: a length is cut")
            n, at = n + b[at], at + 1
            if b[at - 1] != 255:
                return n, at

    while True:
        must(at < len(b), "LZ4: no token")
        literals, match = b[at] >> 4, b[at] & 15
        at += 1
        if literals == 15:
            literals, at = extended(15, at)
        must(at + literals <= len(b), "LZ4: literals are cut")
        out += b[at : at + literals]
        at += literals
        if at == len(b):
            break
        must(at + 2 <= len(b), "LZ4: an offset is cut")
        offset = struct.unpack_from("<H", b, at)[0]
        at += 2
        if match == 15:
            match, at = extended(15, at)
        must(1 <= offset <= len(out), "LZ4: offset")
        must(len(out) + match + 4 <= PAGE, "LZ4: too long")
        for _ in range(match + 4):
            out.append(out[-offset])
    must(len(out) == PAGE, "LZ4: not a page")
    return bytes(out)


def delta(base, b):
    """What a page becomes by a delta."""
    page, at, word, first = bytearray(base), 0, 0, True
    while at < len(b):
        must(at + 4 <= len(b), "delta: a run is cut")
        skip, count = struct.unpack_from("<HH", b, at)
        at += 4
        must(count >= 1 and (skip >= 1 or first), "delta: an empty run")
        word += skip
        must(word + count <= PAGE // 8, "delta: beyond the page")
        must(at + 8 * count <= len(b), "delta: words are cut")
        page[8 * word : 8 * (word + count)] = b[at : at + 8 * count]
        at, word, first = at + 8 * count, word + count, False
    must(not first, "delta: no run")
    return bytes(page)


def unzstd(frame):
    done = subprocess.run(["zstd", "-dcq"], input=frame, capture_output=True, check=False)
    must(done.returncode == 0 and len(done.stdout) == PAGE, "zstd: not a page")
    return done.stdout


def unzstd_all(frames):
    """Decodes many at once; None if there is something wrong with one of them."""
    done = subprocess.run(["zstd", "-dcq"], input=b"".join(frames), capture_output=True, check=False)
    if done.returncode != 0 or len(done.stdout) != PAGE * len(frames):
        return None
    return {f: done.stdout[PAGE * i : PAGE * (i + 1)] for i, f in enumerate(frames)}


def hash_of(page):
    if page.count(0) == PAGE:
        return 0
    return xxh3(page) or 1


def batch(record, n_pages):
    """Flags and descriptors with their payloads: (pfn, hash, pages, kind, payload)."""
    b = record.body
    n, flags, _, reserved, total = struct.unpack_from("<IIIIQ", b)
    must(1 <= n <= 256, f"{record.where}: descriptors")
    must(flags in (0, EXACT, EXACT | POSTCOPY), f"{record.where}: flags")
    must(reserved == 0, f"{record.where}: reserved")
    must(24 * (n + 1) + total == len(b), f"{record.where}: length of the payloads")
    at, following, out = 24 * (n + 1), 0, []
    for i in range(n):
        pfn, page_hash, length, count, kind, reserved = struct.unpack_from("<QQIHBB", b, 24 * (i + 1))
        must(reserved == 0, f"{record.where}: reserved")
        must(pfn >= following, f"{record.where}: pages ascend")
        must(count >= 1 and pfn + count <= n_pages, f"{record.where}: a page beyond memory")
        following = pfn + count
        must(ZERO <= kind <= ZSTD, f"{record.where}: kind {kind}")
        if kind == ZERO:
            must(length == 0 and page_hash == 0, f"{record.where}: zeros")
        else:
            must(count == 1, f"{record.where}: several pages that are not zeros")
            must(length == PAGE if kind == RAW else 1 <= length < PAGE, f"{record.where}: length of a page")
            must(page_hash or (kind == RAW and not flags & EXACT), f"{record.where}: no hash")
            must(kind != DELTA or not flags & POSTCOPY, f"{record.where}: delta in post-copy")
        must(at + length <= len(b), f"{record.where}: payloads beyond the record")
        out.append((pfn, page_hash, count, kind, b[at : at + length]))
        at += length
    must(at == len(b), f"{record.where}: payloads")
    return flags, out


class Memory:
    """The destination's memory, page by page, and what was said of it."""

    def __init__(self, n_pages, frames):
        self.n_pages, self.pages, self.hashes = n_pages, {}, {}
        self.pending, self.final = set(), False
        self.frames = (unzstd_all(frames) if frames else None) or {}
        self.counts = dict.fromkeys(range(1, 6), 0)

    def place(self, record):
        """Places a batch.  Returns the pages in it."""
        flags, descriptors = batch(record, self.n_pages)
        touched = []
        must(self.final or not flags & POSTCOPY, f"{record.where}: post-copy before FINAL")
        must(not self.final or flags & POSTCOPY, f"{record.where}: pages behind FINAL")
        for pfn, told, count, kind, payload in descriptors:
            self.counts[kind] += count
            for page in range(pfn, pfn + count):
                if flags & POSTCOPY:
                    must(page in self.pending, f"{record.where}: page {page} is not pending")
                    self.pending.discard(page)
                touched.append(page)
                try:
                    content = self.decode(page, kind, payload)
                except Violation as why:
                    raise Violation(f"{record.where}: page {page}: {why}") from None
                computed = hash_of(content)
                must(kind == ZERO or not told or told == computed, f"{record.where}: hash of page {page}")
                self.pages[page], self.hashes[page] = content, computed
        return touched, len(descriptors)

    def decode(self, page, kind, payload):
        if kind == ZERO:
            return bytes(PAGE)
        if kind == RAW:
            return payload
        if kind == DELTA:
            return delta(self.pages.get(page, bytes(PAGE)), payload)
        if kind == LZ4:
            return lz4_block(payload)
        return self.frames.get(payload) or unzstd(payload)

    def digest(self, key):
        words = [0, 0]
        for pfn, page_hash in self.hashes.items():
            if page_hash and pfn not in self.pending:
                term = struct.pack("<QQ", pfn, page_hash)
                words = [(w + xxh3(term, k)) & M64 for w, k in zip(words, key)]
        return struct.pack("<QQ", *words)


# --- a migration --------------------------------------------------------------------------------------


class Parts:
    def __init__(self, name, most):
        self.name, self.most, self.total, self.at = name, most, None, 0

    def take(self, record):
        total, offset = struct.unpack_from("<QQ", record.body)
        must(self.total in (None, total) and total <= self.most, f"{record.where}: total of {self.name}")
        must(offset == self.at, f"{record.where}: offset of {self.name}")
        self.total, self.at = total, offset + len(record.body) - 16
        must(self.at <= total, f"{record.where}: {self.name} beyond its end")

    def whole(self):
        return self.total in (None, self.at)


class Source:
    """What the source says on connection 0, and the rules of its order."""

    def __init__(self, hello, memory):
        self.hello, self.memory = hello, memory
        self.state, self.network = Parts("STATE", 16 << 20), Parts("NETWORK", 64 << 20)
        self.seen, self.n_pending, self.pending_done = [], 0, True
        self.finals, self.chunks = [], 0

    def control(self, record):
        name, b, where = record.name, record.body, record.where
        must(self.seen or name in ("CONFIG", "ABORT", "CLOCK", "?"), f"{where}: {name} before CONFIG")
        if self.finals:
            must(name in ("COMMITTED", "FINAL", "LATE", "ABORT", "CLOCK", "?"), f"{where}: {name} behind FINAL")
        if name == "CONFIG":
            must("CONFIG" not in self.seen, f"{where}: a second CONFIG")
            driver = b[:16].rstrip(b"\0")
            must(driver.isalnum() and driver == driver.lower(), f"{where}: name of the driver")
            must(struct.unpack_from("<Q", b, 16)[0] == self.hello.pages, f"{where}: pages of the guest")
        elif name == "ROUND":
            must(not any(b[4:8]), f"{where}: reserved")
        elif name in ("STATE", "NETWORK"):
            (self.state if name == "STATE" else self.network).take(record)
        elif name == "PENDING":
            self.take_pending(record)
        elif name == "FINAL":
            self.take_final(record)
        elif name == "LATE":
            must(self.finals, f"{where}: LATE before FINAL")
        elif name == "COMMITTED":
            must(self.finals, f"{where}: COMMITTED before FINAL")
            must(struct.unpack("<Q", b)[0] == self.hello.epoch + 1, f"{where}: epoch")
        elif name == "CLOCK":
            check_clock(record)
        self.seen.append(name)

    def take_pending(self, record):
        n, last = struct.unpack_from("<II", record.body)
        must(last <= 1 and len(record.body) == 8 + 16 * n, f"{record.where}: ranges")
        following = 0
        for pfn, count in struct.iter_unpack("<QQ", record.body[8:]):
            must(pfn >= following and count >= 1, f"{record.where}: ranges ascend")
            following = pfn + count
            must(following <= self.hello.pages, f"{record.where}: beyond memory")
            fresh = set(range(pfn, following))
            must(not fresh & self.memory.pending, f"{record.where}: a page twice")
            self.memory.pending |= fresh
        self.pending_done = bool(last)
        self.n_pending = len(self.memory.pending)

    def take_final(self, record):
        epoch, digest, chunks, pending, _ = struct.unpack("<Q16sQQQ", record.body)
        must(epoch == self.hello.epoch, f"{record.where}: epoch")
        if self.finals:
            must(len(self.finals) == 1 and self.n_pending, f"{record.where}: a second FINAL")
            must(not self.memory.pending and pending == chunks == 0, f"{record.where}: pages are still pending")
        else:
            must(self.state.whole() and self.network.whole(), f"{record.where}: STATE or NETWORK is not whole")
            must(self.pending_done and pending == self.n_pending, f"{record.where}: PENDING is not whole")
            must(chunks == self.chunks, f"{record.where}: chunks")
        if not self.hello.flags & CHUNKS:
            must("STATE" in self.seen, f"{record.where}: no STATE")
            must(digest == self.memory.digest(self.hello.key), f"{record.where}: digest")
        self.finals.append(digest)
        self.memory.final = True


def check_clock(record):
    answer, reserved, _, received, answered = struct.unpack("<IIQQQ", record.body)
    must(answer <= 1 and reserved == 0, f"{record.where}: CLOCK")
    must(received <= answered if answer else received == answered == 0, f"{record.where}: times of CLOCK")


def check_arrived(record, seen):
    must("RUNNING" in seen, f"{record.where}: ARRIVED before RUNNING")
    n, reserved = struct.unpack_from("<II", record.body)
    text = record.body[8 + 24 * n :]
    must(reserved == 0 and n <= 16 and 8 + 24 * n <= len(record.body), f"{record.where}: vifs")
    must(len(text) <= 1024 and all(c == 10 or 32 <= c < 127 for c in text), f"{record.where}: text")


def check_placed(record, last, barriers):
    now = struct.unpack("<QQQ", record.body)
    must(all(a <= b for a, b in zip(last, now)), f"{record.where}: PLACED goes back")
    must(now[0] <= barriers, f"{record.where}: PLACED of a BARRIER that was not sent")
    return now


def check_destination(records, hello, finals, barriers):
    """Connection 0's other direction.  Returns the types in it."""
    seen, placed = [], (0, 0, 0)
    for record in records:
        name, b = record.name, record.body
        if name == "ACCEPT":
            must(not seen.count("ACCEPT"), f"{record.where}: a second ACCEPT")
            must(struct.unpack("<Q", b)[0] == hello.pages, f"{record.where}: pages")
        elif name == "READY":
            epoch, digest = struct.unpack("<Q16s", b)
            must(seen.count("READY") < len(finals), f"{record.where}: READY without FINAL")
            must(epoch == hello.epoch and digest == finals[seen.count("READY")],
                 f"{record.where}: READY is not FINAL's")
        elif name == "COMMITTED":
            must("READY" in seen, f"{record.where}: COMMITTED before READY")
            must(struct.unpack("<Q", b)[0] == hello.epoch + 1, f"{record.where}: epoch")
        elif name == "RUNNING":
            must("READY" in seen, f"{record.where}: RUNNING before READY")
        elif name == "REQUEST":
            must(len(b) % 8 == 0 and all(p < hello.pages for (p,) in struct.iter_unpack("<Q", b)),
                 f"{record.where}: pages")
        elif name == "CLOCK":
            check_clock(record)
        elif name == "PLACED":
            placed = check_placed(record, placed, barriers)
        elif name == "ARRIVED":
            check_arrived(record, seen)
        seen.append(name)
    return seen


def segments(records, label):
    """Splits a connection's records at its barriers, whose counts are checked."""
    parts, descriptors = [[]], 0
    for record in records:
        if record.name == "BARRIER":
            number, count = struct.unpack("<QQ", record.body)
            must(number == len(parts), f"{record.where}: number of BARRIER")
            must(count == descriptors, f"{record.where}: descriptors before BARRIER")
            parts.append([])
            continue
        must(record.name in ANY_CONNECTION or label == 0, f"{record.where}: {record.name} on connection {label}")
        if record.name == "PAGES":
            descriptors += struct.unpack_from("<I", record.body)[0]
        elif record.name == "END":
            number = record.where.rsplit(" ", 1)[1]
            must(struct.unpack("<II", record.body) == (int(number), 0), f"{record.where}: records before END")
        parts[-1].append(record)
    return parts


def load(directory):
    """The captured bytes, by end and connection."""
    files = {}
    for name in os.listdir(directory):
        stem, _, end = name.partition(".")
        if stem.startswith("conn") and end in ("source", "destination"):
            with open(os.path.join(directory, name), "rb") as f:
                files[end[0].upper(), int(stem[4:])] = f.read()
    return files


def read_all(files, may_cut):
    ends = {"S": {}, "D": {}}
    for end, index in sorted(files):
        label = f"conn{index}.{'source' if end == 'S' else 'destination'}"
        ends[end][index] = read_direction(files[end, index], end, label, may_cut)
    return ends["S"], ends["D"]


def check_hellos(source, destination):
    must(source, "no connection 0")
    first = source[min(source)][0]
    must(sorted(source) == sorted(destination) == list(range(first.n)), "not all connections are there")
    for end in (source, destination):
        for index, (hello, _) in end.items():
            for field in ("n", "migration", "vm", "epoch", "pages", "key"):
                must(getattr(hello, field) == getattr(first, field), f"conn{index}: hello: {field}")
            must(hello.index == index, f"conn{index}: hello: index")
            must((hello.flags ^ first.flags) & (TLS | CHUNKS) == 0, f"conn{index}: hello: flags")
            must(not hello.flags & REFUSED, f"conn{index}: refused")
    return first


def check(files, may_cut=False):
    """The memory that the streams make and what the source said; or a Violation."""
    source, destination = read_all(files, may_cut)
    hello = check_hellos(source, destination)
    parts = {i: segments(records, i) for i, (_, records) in source.items()}
    must(may_cut or len({len(p) for p in parts.values()}) == 1, "a BARRIER is not on every connection")
    memory = Memory(hello.pages, zstd_frames(source, hello.pages))
    said, chunks = Source(hello, memory), set()
    for k in range(min(len(p) for p in parts.values())):
        check_segment(k, parts, said, chunks)
    for end in (destination, source):
        for index, (_, records) in end.items():
            must(index == 0 or all(r.name in ANY_CONNECTION for r in records), f"conn{index}: control records")
    barriers = max(len(p) for p in parts.values()) - 1
    answers = check_destination(destination[0][1], hello, said.finals, barriers)
    if not may_cut and "ABORT" not in answers + said.seen:
        must(len(said.finals) == 1 + bool(said.n_pending), "no FINAL")
        must(answers.count("READY") == len(said.finals), "no READY")
        must("RUNNING" in answers, "no RUNNING")
        must(not memory.pending, f"{len(memory.pending)} pages are still pending")
        must("COMMITTED" in answers + said.seen, "no COMMITTED")
    return memory, said


def zstd_frames(source, n_pages):
    frames = {}
    for _, records in source.values():
        for record in records:
            if record.name == "PAGES":
                for descriptor in batch(record, n_pages)[1]:
                    if descriptor[3] == ZSTD:
                        frames[descriptor[4]] = True
    return list(frames)


def check_segment(k, parts, said, chunks):
    """Between two barriers: pages may come over any connection, each page over one."""
    owner = {}
    controls = [r for r in parts[0][k] if r.name not in ANY_CONNECTION]
    pages = [(i, r) for i in parts for r in parts[i][k] if r.name == "PAGES"]
    late = []
    for i, record in pages:
        if not said.finals and struct.unpack_from("<I", record.body, 4)[0] & POSTCOPY:
            late.append(record)
            continue
        for page in said.memory.place(record)[0]:
            must(owner.setdefault(page, i) == i, f"{record.where}: page {page} over two connections")
    for records in parts.values():
        for record in records[k]:
            if record.name == "CHUNK":
                must(said.hello.flags & CHUNKS, f"{record.where}: CHUNK of a memory driver")
                sequence = struct.unpack_from("<Q", record.body)[0]
                must(sequence not in chunks, f"{record.where}: a chunk twice")
                chunks.add(sequence)
    said.chunks = len(chunks)
    for record in controls:
        if record.name == "FINAL":
            must(chunks == set(range(len(chunks))), f"{record.where}: a chunk is missing")
            must(not [r for _, r in pages if r not in late], f"{record.where}: pages and FINAL, no BARRIER between")
        said.control(record)
    for record in late:
        said.memory.place(record)


def main():
    arguments, may_cut, out = sys.argv[1:], False, None
    if "--cut" in arguments:
        arguments.remove("--cut")
        may_cut = True
    if arguments[:1] == ["--memory"]:
        out = arguments[1]
        arguments = arguments[2:]
    if len(arguments) != 1:
        sys.exit(__doc__)
    try:
        memory, said = check(load(arguments[0]), may_cut)
    except Violation as rule:
        print(f"violation: {rule}")
        sys.exit(1)
    if out:
        with open(out, "wb") as f:
            for pfn in range(memory.n_pages):
                f.write(memory.pages.get(pfn, bytes(PAGE)))
    zero, raw, deltas, lz4, zstd = (memory.counts[k] for k in range(1, 6))
    print(f"ok: {said.hello.n} connections, {memory.n_pages} pages, {said.chunks} chunks; "
          f"sent {zero} zero, {raw} raw, {deltas} delta, {lz4} lz4, {zstd} zstd")


if __name__ == "__main__":
    main()
