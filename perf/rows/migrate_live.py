"""Cells that run move between two switch ports: how long they stand still, and what
goes over the wire, idle and while they write memory at a set rate.

    weft-cell (domain n) -- weft-migrate send > TLS > weft-migrate receive -- weft-cell (n + 1)

The same guest moves on and on.  Both ends, the guest and its writer share the machine,
so a rate that the guest cannot keep up beside its own migration is not reached.  There
is no peer: QEMU without hardware virtualization does not write memory at these rates.
"""
import contextlib
import json
import os
import time
import uuid

from report import Figure, Goal
from rig import BRIDGE, ROOT, BenchError
from rig import run as command
from rows import migrate

NAME = "migrate-live"
TITLE = "cells moved while they run: blackout, time, bytes on the wire"

MIB, SET_MB = 512, 128
# MB/s that the guest writes; the goal for its blackout in ms.
RATES = ((0, 10), (100, None), (500, 50), (1000, None), (2000, None))


class Guest:
    """A cell, wherever it is now."""

    def __init__(self, rig, stack, rate):
        self._rig, self._stack = rig, stack
        self._vm = str(uuid.uuid4())
        self._epoch = 1
        self._claim = f"{rig.dir}/claim-{self._vm}"
        self._program = f"{rig.programs}/weft-migrate"
        self._domid = self._start("--cmdline", f"rate={rate} set={SET_MB} fill={MIB // 4}")
        command([self._program, "claim", self._claim, self._vm, f"h{self._domid}", "1"])

    def _control(self, domid):
        return f"{self._rig.dir}/{domid}.sock"

    def _start(self, *more):
        domid = self._rig.next_domid()
        self._rig.spawn(self._stack, f"cell-{domid}", [
            f"{self._rig.programs}/weft-cell", "--image", f"{ROOT}/build/share/cell.img",
            "--memory", f"{MIB}M", "--dir", f"{self._rig.dir}/xen", "--domid", str(domid),
            "--control", self._control(domid), "--vif",
            f"mac=00:16:3e:00:50:01,ip=10.0.0.2/24,bridge={BRIDGE}", *more])
        until(lambda: os.path.exists(self._control(domid)), f"cell {domid} does not start")
        return domid

    def move(self, place):
        """The source's result, as weft-migrate prints it."""
        there = self._start("--incoming")
        common = ["--driver", "cell", "--vm", self._vm, "--migration", str(uuid.uuid4()),
                  "--epoch", str(self._epoch), "--claim-file", self._claim, "--from",
                  f"h{self._domid}", "--to", f"h{there}"]
        name = f"receive-{there}"
        receiver = self._rig.spawn(
            self._stack, name,
            [self._program, "receive", *common, *place.tls("server"), "--listen", "127.0.0.1:0",
             "--option", f"control={self._control(there)}"], netns=self._rig.netns)
        until(lambda: event(f"{self._rig.dir}/{name}.log", "listening"), f"{name} does not listen")
        address = event(f"{self._rig.dir}/{name}.log", "listening")["address"]
        out = command([self._program, "send", *common, *place.tls("client"), "--connect", address,
                       "--option", f"control={self._control(self._domid)}"],
                      netns=self._rig.netns, timeout=120)
        receiver.popen.wait(30)
        self._domid = there
        self._epoch += 1
        return json.loads(next(line for line in out.splitlines() if '"result"' in line))


def event(log, name):
    with open(log, encoding="utf-8") as f:
        return next((json.loads(line) for line in f if f'"{name}"' in line and line[0] == "{"), None)


def until(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise BenchError(what)
        time.sleep(0.01)


def run(bench):
    figures = []
    with bench.rig() as rig, contextlib.ExitStack() as stack:
        place = migrate.Certificates(stack)
        for rate, goal in RATES:
            results = []
            with contextlib.ExitStack() as guests:
                guest = Guest(rig, guests, rate)
                for i in range(bench.pairs * 4):
                    bench.say(f"{NAME}: {rate} MB/s written: move {i + 1} of {bench.pairs * 4}")
                    time.sleep(0.3)
                    results.append(guest.move(place))
            what = f"{rate} MB/s written" if rate else "idle"
            blackouts = sorted(r["blackout_ms"] for r in results)
            p99 = blackouts[min(len(blackouts) - 1, int(len(blackouts) * 0.99))]
            figures += [
                Figure(NAME, f"{what}: blackout", "ms", blackouts),
                Figure(NAME, f"{what}: blackout, p99 of {len(blackouts)}", "ms", [p99],
                       goal=Goal(goal, at_most=True) if goal else None),
                Figure(NAME, f"{what}: whole move", "ms", [r["total_ms"] for r in results]),
                Figure(NAME, f"{what}: on the wire", "MB",
                       [r["bytes_wire"] / 1e6 for r in results]),
            ]
    return figures
