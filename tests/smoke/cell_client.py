"""A client of weft-cell's control socket (lib/cell_proto.h), written from its header."""
import array
import mmap
import socket
import struct

(STATUS, MEMORY, PAUSE, RESUME, RUN, STATE_GET, STATE_SET, DIRTY_START, DIRTY_FETCH, DIRTY_STOP,
 THROTTLE, PINNED, POSTCOPY_START, POSTCOPY_END, SHUTDOWN, DESTROY) = range(1, 17)
MAGIC = 0x4C4C4543
STATES = {1: "made", 2: "loaded", 3: "running", 4: "paused", 5: "dead"}
PAGE = 4096


class CellError(OSError):
    pass


class Cell:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(30)
        self.sock.connect(path)
        self.seq = 0

    def close(self):
        self.sock.close()

    def call(self, op, arg=0, data=b"", fd=-1):
        """(bytes, descriptor or -1); an errno is a CellError."""
        self.seq += 1
        message = struct.pack("<IHHIIQ", MAGIC, 1, op, self.seq, len(data), arg) + data
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
        self.sock.sendmsg([message], rights)
        reply, control, _, _ = self.sock.recvmsg(4096, socket.CMSG_SPACE(16))
        if len(reply) < 16:
            raise CellError(32, "the cell is gone")
        magic, seq, error, length = struct.unpack_from("<IIII", reply)
        assert magic == MAGIC and seq == self.seq and length == len(reply) - 16
        fds = array.array("i")
        for level, kind, raw in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(raw[:len(raw) // 4 * 4])
        if error:
            raise CellError(error, f"operation {op}")
        return reply[16:], fds[0] if fds else -1

    def status(self):
        raw, _ = self.call(STATUS)
        state, vif, epoch, base, pages, build_id, connected = struct.unpack_from("<IIQQQ20sI", raw)
        run, conn, rx, cpu = struct.unpack_from("<QQQQ", raw, 56)
        return {"state": STATES[state], "vif": vif, "epoch": epoch, "pages": pages,
                "build_id": build_id, "connected": connected, "run_ns": run, "connected_ns": conn,
                "first_rx_ns": rx, "cpu_ns": cpu,
                "dirty_log": raw[88:104].split(b"\0")[0].decode(),
                "why": raw[104:232].split(b"\0")[0].decode()}

    def memory(self):
        """The guest's memory, mapped."""
        raw, fd = self.call(MEMORY)
        _, offset, pages = struct.unpack("<QQQ", raw)
        assert offset % PAGE == 0
        whole = mmap.mmap(fd, offset + pages * PAGE)
        return memoryview(whole)[offset:]

    def dirty_start(self):
        _, fd = self.call(DIRTY_START)
        pages = self.status()["pages"]
        return mmap.mmap(fd, (pages + 63) // 64 * 8, prot=mmap.PROT_READ)
