"""A guest's memory through the migration's transport, beside QEMU's multifd.

Both move the same 2 GiB image (30 % zero pages, 40 % compressible, 30 % noise) of a
guest that does not run, over loopback, out of and into memory with huge pages, as guests
have: in plain text, and by TLS with certificates of the same kind; QEMU also with a
pre-shared key, as in the figures by which the goal was set.  What counts is guest
memory per CPU second of both ends; memory is warmed before each run, because a
hypervisor may have taken free memory away, and getting it back costs more than a
migration.
"""
import contextlib
import json
import os
import shutil
import socket
import tempfile
import time

from report import Figure, Goal
from rig import MEMORY, PERF_BIN, PREFIX, BenchError, Process, Rig
from rig import run as command

NAME = "migrate"
TITLE = "2 GiB of guest memory, against QEMU's multifd, plain and TLS"

MIB = int(os.environ.get("MIGRATE_MIB", "2048"))
CONNECTIONS = "2"
PORT = 44555
PEER = "QEMU 7.2, multifd, 2 channels"
BENCH = f"{PERF_BIN}/bench_migrate"


class Certificates:
    """A directory in memory with those of two ends, by the file names that QEMU wants."""

    def __init__(self, stack):
        self.dir = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-migrate-", dir=MEMORY)
        stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
        d, days = self.dir, ["-days", "2"]
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command(["openssl", "req", "-x509", *key, "-keyout", f"{d}/ca-key.pem", "-out",
                 f"{d}/ca-cert.pem", "-subj", "/CN=bench", *days,
                 "-addext", "keyUsage=critical,keyCertSign"])
        with open(f"{d}/ext", "w", encoding="ascii") as f:
            f.write("subjectAltName=DNS:host\nkeyUsage=digitalSignature\n"
                    "extendedKeyUsage=serverAuth,clientAuth\n")
        for end in ("server", "client"):
            command(["openssl", "req", *key, "-keyout", f"{d}/{end}-key.pem", "-out",
                     f"{d}/{end}.csr", "-subj", f"/CN={end}"])
            command(["openssl", "x509", "-req", "-in", f"{d}/{end}.csr", "-CA",
                     f"{d}/ca-cert.pem", "-CAkey", f"{d}/ca-key.pem", "-CAcreateserial", "-out",
                     f"{d}/{end}-cert.pem", "-extfile", f"{d}/ext", *days])
        with open(f"{d}/keys.psk", "w", encoding="ascii") as f:
            f.write(f"qemu:{os.urandom(32).hex()}\n")

    def tls(self, end):
        """weft-migrate's options."""
        return ["--tls-private-key", f"{self.dir}/{end}-key.pem", "--tls-certificate",
                f"{self.dir}/{end}-cert.pem", "--tls-ca-cert", f"{self.dir}/ca-cert.pem",
                "--tls-peer-name", "host"]


class Place(Certificates):
    """And a namespace and an image."""

    def __init__(self, stack):
        super().__init__(stack)
        self.netns = f"{PREFIX}{os.getpid()}-migrate"
        Rig.make_netns(stack, self.netns)
        self.image = self._huge_file(stack)
        command([BENCH, "make", self.image, str(MIB)], timeout=300)

    def _huge_file(self, stack):
        """An empty file in huge pages where the kernel has them; it goes when we do, for only
        our descriptor leads to its file system."""
        at = f"{self.dir}/image"
        os.mkdir(at)
        command(["mount", "-t", "tmpfs", "-o", "huge=always", "tmpfs", at])
        try:
            fd = os.open(f"{at}/image", os.O_RDWR | os.O_CREAT, 0o600)
        finally:
            command(["umount", "--lazy", at])
        stack.callback(os.close, fd)
        return f"/proc/{os.getpid()}/fd/{fd}"


def warm():
    command([BENCH, "warm", str(MIB * 5 // 2)], timeout=300)


def weft(place, tls):
    """(GB, seconds, CPU seconds, GB on the wire)"""
    how = [f"{place.dir}/server-key.pem", f"{place.dir}/server-cert.pem",
           f"{place.dir}/ca-cert.pem", "host"] if tls else []
    warm()
    got = json.loads(command([BENCH, place.image, CONNECTIONS, "auto" if tls else "none", *how],
                             netns=place.netns, timeout=300))
    return (got["bytes"] / 1e9, got["seconds"], got["cpu_source"] + got["cpu_destination"],
            got["wire"] / 1e9)


def credentials(place, end, how):
    """QEMU's, of its object "t"."""
    if how == "x509":
        return ["-object", f"tls-creds-x509,id=t,endpoint={end},dir={place.dir},verify-peer=on"]
    return ["-object", f"tls-creds-psk,id=t,endpoint={end},dir={place.dir}"] if how else []


class Qemu:
    """One of the two processes, and its control socket."""

    def __init__(self, stack, place, end, memory, tls, more=()):
        path = f"{place.dir}/{end}.qmp"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._process = Process(place, f"qemu-{end}", [
            "qemu-system-x86_64", "-M", "q35,memory-backend=m", "-accel", "tcg", "-m", str(MIB),
            "-display", "none", "-nodefaults", "-S", "-object", memory, "-qmp",
            f"unix:{path},server=on,wait=off",
            *credentials(place, end, tls), *more], netns=place.netns)
        stack.callback(self._process.stop)
        self._lines = self._connect(stack, path)
        self._lines.readline()
        self.ask("qmp_capabilities")
        self.ask("migrate-set-capabilities",
                 capabilities=[{"capability": "multifd", "state": True}])
        self.ask("migrate-set-parameters", **{"multifd-channels": int(CONNECTIONS)},
                 **({"tls-creds": "t", "tls-hostname": "host"} if tls else {}))

    def _connect(self, stack, path):
        for _ in range(300):
            self._process.check()
            s = socket.socket(socket.AF_UNIX)
            try:
                s.connect(path)
                stack.callback(s.close)
                return stack.enter_context(s.makefile("rw", encoding="utf-8"))
            except OSError:
                s.close()
                time.sleep(0.05)
        raise BenchError(f"QEMU does not answer on {path}")

    def ask(self, what, **arguments):
        self._lines.write(json.dumps({"execute": what, "arguments": arguments}) + "\n")
        self._lines.flush()
        while True:
            answer = json.loads(self._lines.readline() or '{"error": "it ended"}')
            if "error" in answer:
                raise BenchError(f"QEMU: {what}: {answer['error']}")
            if "return" in answer:
                return answer["return"]

    def cpu(self):
        """Of the whole process, with its threads that have ended."""
        with open(f"/proc/{self._process.pid}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def qemu(place, tls):
    with contextlib.ExitStack() as stack:
        source = Qemu(stack, place, "client",
                      f"memory-backend-file,id=m,size={MIB}M,mem-path={place.image},share=on", tls)
        there = Qemu(stack, place, "server", f"memory-backend-ram,id=m,size={MIB}M", tls,
                     more=["-incoming", "defer"])
        source.ask("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        there.ask("migrate-incoming", uri=f"tcp:127.0.0.1:{PORT}")
        warm()
        cpu, start = source.cpu() + there.cpu(), time.monotonic()
        source.ask("migrate", uri=f"tcp:127.0.0.1:{PORT}")
        while True:
            now = source.ask("query-migrate")
            if now["status"] in ("completed", "failed", "cancelled"):
                break
            time.sleep(0.01)
        seconds, cpu = time.monotonic() - start, source.cpu() + there.cpu() - cpu
        if now["status"] != "completed":
            raise BenchError(f"QEMU: migration {now['status']}: {now.get('error-desc', '')}")
        return MIB * 1.048576e-3, seconds, cpu, now["ram"]["transferred"] / 1e9


# What, how QEMU encrypts, the goal.
WAYS = (("plain", None, 2), ("TLS 1.3, certificates at both ends", "x509", None),
        ("TLS 1.3; QEMU: pre-shared key", "psk", 10))


def run(bench):
    figures = []
    with contextlib.ExitStack() as stack:
        place = Place(stack)
        for title, how, goal in WAYS:
            ours, theirs = [], []
            for pair in range(bench.pairs):
                for measure, into in ((weft, ours), (qemu, theirs)):
                    bench.say(f"{NAME}: {title}: pair {pair + 1} of {bench.pairs}, "
                              f"{measure.__name__}")
                    into.append(measure(place, how))
            beside = {"GB on the wire": ([m[3] for m in ours], [m[3] for m in theirs])}
            figures += [
                Figure(NAME, title, "GB per CPU-second", [m[0] / m[2] for m in ours], PEER,
                       [m[0] / m[2] for m in theirs], Goal(goal, on="ratio") if goal else None,
                       beside=beside),
                Figure(NAME, title, "GB/s", [m[0] / m[1] for m in ours], PEER,
                       [m[0] / m[1] for m in theirs], beside=beside),
            ]
    return figures
