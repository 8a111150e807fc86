"""The switch is killed under traffic, again and again.

    client  ==  rate  ==>  server (sink)      established connections only:
                                              the policy has forgotten how new
                                              ones would be allowed
    intruder  --------->  victim (sink)       forbidden: must never get through

The outage of a kill is the longest pause at the sink around it.  Connections
that the successor does not know are refused by the policy, so the traffic would
not come back; what the policy denies would show at the victim.
"""
import contextlib
import glob
import math
import os
import re
import signal
import time

from report import Figure, Goal
from rig import BRIDGE, BenchError, Rig, mac_of

NAME = "restart"
TITLE = "SIGKILL of the switch under traffic and stateful rules: outage"

KILLS = int(os.environ.get("RESTART_KILLS", "100"))
RATE = int(os.environ.get("RESTART_RATE", "100000"))
SPARE = os.environ.get("RESTART_SPARE", "1") != "0"
FLOWS = 4
GAP_MS = 2
GOAL_MS = 50
BACK_S, SETTLE_S = 20, 0.5

CLIENT, SERVER, INTRUDER, VICTIM = 1, 2, 3, 4

TRACK = [
    "table=0,priority=10,arp,actions=NORMAL",
    "table=0,priority=10,udp,ct_state=-trk,actions=ct(table=1,zone=7)",
]
# While connections are made: as the switch learns.
OPEN = TRACK + [
    "table=1,priority=20,udp,ct_state=+trk+est-inv,actions=NORMAL",
    f"table=1,priority=20,udp,dl_src={mac_of(CLIENT)},ct_state=+trk+new-inv,"
    "actions=ct(commit,zone=7),NORMAL",
]


def closed(server_port):
    """Established connections to the server, nothing else."""
    return TRACK + [f"table=1,priority=20,udp,dl_dst={mac_of(SERVER)},ct_state=+trk+est-inv,"
                    f"actions=output:{server_port}"]


class RestartRig(Rig):
    """A switch with a spare, or one that is started again when it dies."""

    def _start_vswitchd(self):
        self._launch()
        try:
            self.vsctl("set", "Bridge", BRIDGE, "datapath_type=weft", timeout=90)
        except BenchError:
            self.vswitchd.fail("did not take its configuration")

    def _launch(self):
        argv = [f"{self.programs}/weft-vswitchd", f"unix:{self.dir}/db.sock", "--pidfile",
                f"--unixctl={self.dir}/vswitchd.ctl", "-vconsole:info", "-vsyslog:off",
                "-vPATTERN:console:%D{%H:%M:%S.###}|%c|%p|%m"]
        self.vswitchd = self.spawn(self, "weft-vswitchd", argv + (["--spare"] if SPARE else []),
                                   netns=self.netns)

    def switch_pid(self):
        with open(f"{self.dir}/ovs-vswitchd.pid", encoding="ascii") as f:
            return int(f.read())

    def spare_ready(self):
        try:
            with open(f"{self.dir}/weft/spare", encoding="ascii") as f:
                lines = f.read().split("\n")
        except FileNotFoundError:
            return False
        return any(re.match(r"spare \d+ ready", line) for line in lines) and any(
            re.match(r"active \d+ ready", line) for line in lines)

    def kill_switch(self):
        """Returns when it was, in seconds of CLOCK_MONOTONIC."""
        pid = self.switch_pid()
        at = time.clock_gettime(time.CLOCK_MONOTONIC)
        os.kill(pid, signal.SIGKILL)
        if not SPARE:
            self.vswitchd.popen.wait()
            self._launch()
        return at


def until(what, condition, timeout=20):
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise BenchError(f"{what}: not within {timeout} s")
        time.sleep(0.02)


def lines_of(process):
    with open(process.log, encoding="utf-8", errors="replace") as f:
        return f.read()


class Gaps:
    """What a sink says of pauses, read as it comes: the switch needs the CPU."""

    def __init__(self, process):
        self._log = open(process.log, encoding="utf-8", errors="replace")
        self._rest = ""

    def close(self):
        self._log.close()

    def new(self):
        """[(end, milliseconds)] since the last call."""
        *lines, self._rest = (self._rest + self._log.read()).split("\n")
        found = (re.match(r".*gap of ([\d.]+) ms ends at ([\d.]+)", line) for line in lines)
        return [(float(m.group(2)), float(m.group(1))) for m in found if m]


def outage(gaps, at):
    """Milliseconds without a packet because of a kill at 'at'; None if traffic
    does not come back."""
    longest, settled = 0, None
    end = time.monotonic() + BACK_S
    while time.monotonic() < (settled or end):
        time.sleep(0.02)
        for gap_end, ms in gaps.new():
            if gap_end > at and ms >= GAP_MS:
                longest = max(longest, ms)
                settled = settled or time.monotonic() + SETTLE_S
    return longest or None


def saved(rig):
    """The OpenFlow state for a successor."""
    files = glob.glob(f"{rig.env['OVS_DBDIR']}/weft/*.openflow")
    return "".join(open(f, encoding="utf-8").read() for f in files)


def received(rig, domid):
    found = re.search(r"tx_packets=(\d+)",
                      rig.vsctl("get", "Interface", f"vif{domid}.0", "statistics"))
    return int(found.group(1)) if found else 0


def ip_of(domid):
    return f"198.18.0.{domid}"


def stream(src, dst, rate):
    return ["--dst-mac", mac_of(dst), "--src-ip", ip_of(src), "--dst-ip", ip_of(dst),
            "--size", 64, "--rate", rate]


def run(bench):
    with RestartRig(bench.programs, bench.options, ["pmd-maxsleep=500"]) as rig:
        return _run(bench, rig)


def _answer(rig, sink_domid):
    """One packet of each connection in the reply's direction."""
    with contextlib.ExitStack() as stack:
        for port in range(2000, 2000 + FLOWS):
            p = rig.start_guest(stack, "blast", *stream(sink_domid, CLIENT, 1000), "--src-port", 9,
                                "--dst-port", port, "--count", 5, "--settle", 0.3, domid=sink_domid)
            p.wait_ready()
            p.popen.wait(20)


def _run(bench, rig):
    rig.add_flows(BRIDGE, OPEN)
    with contextlib.ExitStack() as stack:
        client = rig.start_guest(stack, "blast", *stream(CLIENT, SERVER, RATE), "--flows", FLOWS,
                                 "--src-port", 2000, "--dst-port", 9, domid=CLIENT)
        client.wait_ready()
        _answer(rig, SERVER)
        server = rig.start_guest(stack, "sink", "--gaps", GAP_MS, domid=SERVER)
        server.wait_ready()
        rig.ofctl("del-flows", rig.bridge_socket(BRIDGE))
        rig.add_flows(BRIDGE, closed(rig.port_number(f"vif{SERVER}.0")))
        victim = rig.start_guest(stack, "sink", "--verify", domid=VICTIM)
        intruder = rig.start_guest(stack, "blast", *stream(INTRUDER, VICTIM, 1000), domid=INTRUDER)
        victim.wait_ready()
        intruder.wait_ready()
        until("traffic", lambda: received(rig, SERVER) > RATE / 10)
        # Rules are in their file some 50 ms later, or when the disk lets them be.
        until("the policy in its file", lambda: "NORMAL" in saved(rig) and "commit" not in saved(rig))
        gaps = Gaps(server)
        stack.callback(gaps.close)
        outages, lost = [], 0
        for i in range(KILLS):
            bench.say(f"{NAME}: kill {i + 1} of {KILLS}")
            if SPARE:
                until("a spare", rig.spare_ready, 30)
            # OpenFlow state and connections reach their files in this time.
            time.sleep(0.5)
            gaps.new()
            took = outage(gaps, rig.kill_switch())
            if not took:
                lost += 1
                break
            outages.append(took)
        bench.unsay()
        alive = _tracked(rig)
        forbidden = _forbidden(victim)
    outages.sort()
    if lost or forbidden or alive != FLOWS:
        raise BenchError(f"{lost} times traffic did not come back; {forbidden} forbidden packets "
                         f"were delivered; {alive} of {FLOWS} connections are alive")

    def at(q):
        return outages[max(0, math.ceil(q * len(outages)) - 1)]

    how = "warm spare" if SPARE else "started again"
    note = f"{len(outages)} kills, {RATE} packets/s, {FLOWS} established connections, {how}"
    return [
        Figure(NAME, f"outage p50, {how}", "ms", [at(0.5)], note=note),
        Figure(NAME, f"outage p99, {how}", "ms", [at(0.99)],
               goal=Goal(GOAL_MS, on="value", at_most=True),
               note=f"worst {outages[-1]:.0f} ms; no forbidden packet delivered, no flow cut"),
    ]


def _tracked(rig):
    """Connections of the client that the switch knows: no new ones can be made."""
    text = rig.appctl("dpctl/dump-conntrack")
    return sum(f"src={ip_of(CLIENT)},dst={ip_of(SERVER)},sport={2000 + i}," in text
               for i in range(FLOWS))


def _forbidden(victim):
    """Test frames that reached the victim, as it says at its end."""
    victim.stop()
    found = re.search(r"verify: (\d+) frames", lines_of(victim))
    if not found:
        raise BenchError(f"the victim did not say what it received:\n{victim.tail()}")
    return int(found.group(1))
