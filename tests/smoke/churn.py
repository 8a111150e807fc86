"""Everything changes at once, under traffic, for CHURN_SECONDS.

    g1 g2 g3   TAP guests: ping and TCP among them, by conntrack
    b1 b2  ──>  s1 s2   streams, one of few flows, one of many
    a   ──>  v   allowed
    i1  ─X>  v   denied by address
    i2  ─X>  v   denied by connection: nothing ever commits one for it
    visitors     vifs that come, start over, go, or die

Meanwhile OpenFlow flows, groups and meters come and go, as do bridges, internal
and polled ports, mirrors, samplers, and connections; and every command that
shows something is asked to.  Afterwards: each vif still forwards, a new one
does, v never got a packet of i1 or i2 (and would have, had the rules not been),
an exit and a start later as well, and no sanitizer said a word.
"""
import contextlib
import functools
import glob
import itertools
import json
import os
import random
import re
import shutil
import sys
import tempfile
import threading
import time
import traceback
import types

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../perf"))
from rig import BRIDGE, ROOT, BenchError, Rig, mac_of, run  # noqa: E402

SECONDS = float(os.environ.get("CHURN_SECONDS", "18"))
PROGRAMS = os.path.abspath(os.environ.get("WEFT_BIN", f"{ROOT}/build/bin"))
# Nothing is late before this has passed, on however busy a machine.
PATIENCE = 300

G1, G2, G3, B1, B2, S1, S2, A, V, I1, I2 = range(1, 12)
TAPS = {G1: "10.0.0.1", G2: "10.0.0.2", G3: "10.0.0.3"}
ALLOWED, DENIED = 10, 9  # UDP ports at v

POLICY = [
    f"table=0,priority=100,dl_src={mac_of(I1)},dl_dst={mac_of(V)},actions=drop",
    f"table=0,priority=90,udp,dl_dst={mac_of(V)},actions=ct(table=10,zone=7)",
    "table=0,priority=0,actions=resubmit(,1)",
    f"table=10,priority=20,udp,dl_src={mac_of(A)},ct_state=+trk+new,"
    "actions=ct(commit,zone=7),NORMAL",
    "table=10,priority=20,udp,ct_state=+trk+est-inv,actions=NORMAL",
    "table=10,priority=0,actions=drop",
]
FORWARD = [
    "table=1,priority=0,actions=resubmit(,2)",
    "table=2,priority=20,tcp,actions=ct(zone=1,nat,table=3)",
    "table=2,priority=10,icmp,actions=ct(zone=1,table=3)",
    "table=2,priority=0,actions=NORMAL",
    "table=3,priority=20,ip,ct_state=+trk+new,actions=ct(commit,zone=1,nat),NORMAL",
    "table=3,priority=10,actions=NORMAL",
]
CHURNED = "cookie=0xc0ffee/-1"
GROUPS, METERS = range(1, 9), range(1, 9)

failures = []
HARD = {"alive", "exit", "exit-cleanup", "no-asserts", "policy", "runs", "sanitizers-silent"}


def check(name, wrong):
    """A case of the test; 'wrong' is empty or says why it failed."""
    wrong = re.sub(r"\s+", " ", str(wrong or "")).strip()
    print(f"not ok churn-{name}: {wrong[:1500]}" if wrong else f"ok churn-{name}", flush=True)
    if wrong:
        failures.append(name)


def waited(rig, condition, end):
    """Whether it came true before 'end'."""
    while not condition():
        rig.vswitchd.check()
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


class ChurnRig(Rig):
    """A host whose switch can be ended and started again."""

    def __init__(self, *args):
        super().__init__(*args)
        self._visitors = itertools.count(100)

    def next_visitor(self):
        return next(self._visitors)

    def _configure(self):
        super()._configure()
        self.vsctl("--no-wait", "set", "Bridge", BRIDGE, "datapath_type=weft")

    def _start_vswitchd(self):
        self.start_switch()

    def start_switch(self):
        self.vswitchd = self.spawn(
            self, "weft-vswitchd",
            [f"{self.programs}/weft-vswitchd", f"unix:{self.dir}/db.sock", "--enable-synth",
             f"--unixctl={self.dir}/vswitchd.ctl", "-vconsole:info",
             "--syslog-method=null"],
            netns=self.netns)
        try:
            # A change, each time: only those are waited for.
            self.vsctl("set", "Bridge", BRIDGE, f"external_ids:started={self.vswitchd.pid}",
                       timeout=PATIENCE)
        except BenchError:
            self.vswitchd.fail("did not take its configuration")

    def end_switch(self, *how):
        """Returns the exit status."""
        self.appctl("exit", *how)
        return self.vswitchd.popen.wait(PATIENCE)

    def appctl(self, *args):
        return run([f"{self.programs}/ovs-appctl", f"--timeout={PATIENCE}", "-t",
                    f"{self.dir}/vswitchd.ctl", *args], env=self.env, timeout=PATIENCE + 10)

    def of15(self, *args):
        return run([f"{self.programs}/ovs-ofctl", "-OOpenFlow15", "--names", args[0],
                    self.bridge_socket(BRIDGE), *args[1:]], env=self.env, timeout=PATIENCE)

    def of15_lines(self, command, lines, *options):
        """For commands that read a file."""
        path = f"{self.dir}/{command}"
        with open(path, "w", encoding="ascii") as f:
            f.write("\n".join(lines) + "\n")
        run([f"{self.programs}/ovs-ofctl", "-OOpenFlow15", *options, command,
             self.bridge_socket(BRIDGE), path], env=self.env, timeout=PATIENCE)

    def counters(self):
        """{port name: (packets from it, packets to it)} of the bridge's ports."""
        found = re.findall(r'port +"?([\w.]+)"?: +rx pkts=(\d+).*?tx pkts=(\d+)',
                           self.of15("dump-ports"), re.S)
        return {name: (int(rx), int(tx)) for name, rx, tx in found}


def guest(rig, stack, mode, domid, *args):
    p = rig.start_guest(stack, mode, *args, domid=domid)
    p.wait_ready(PATIENCE)
    return p


def stream(src, dst, port, rate, flows):
    return ["--dst-mac", mac_of(dst), "--src-ip", f"198.18.0.{src}", "--dst-ip",
            f"198.18.0.{dst}", "--dst-port", port, "--rate", rate, "--flows", flows]


def netns_of(rig, domid):
    return f"{rig.netns}-g{domid}"


def start_guests(rig, stack):
    """Returns the sink v."""
    for domid, ip in TAPS.items():
        rig.make_netns(stack, netns_of(rig, domid))
        guest(rig, stack, "tap", domid, "--netns", netns_of(rig, domid), "--ip", f"{ip}/24",
              "--queues", domid)
    victim = guest(rig, stack, "sink", V, "--verify", "--json", "--dst-port", DENIED)
    guest(rig, stack, "sink", S1, "--static-grants")
    guest(rig, stack, "sink", S2, "--queues", 2)
    guest(rig, stack, "blast", B1, *stream(B1, S1, 7, 300, 4), "--gso", 1400, "--size", 9000)
    guest(rig, stack, "blast", B2, *stream(B2, S2, 7, 1000, 1000))
    guest(rig, stack, "blast", A, *stream(A, V, ALLOWED, 200, 20))
    guest(rig, stack, "blast", I1, *stream(I1, V, DENIED, 200, 50))
    guest(rig, stack, "blast", I2, *stream(I2, V, DENIED, 200, 50))
    return victim


# --- what changes ----------------------------------------------------------------------

def random_match():
    def ip():
        return f"10.0.{random.randrange(4)}.{random.randrange(256)}/{random.randrange(8, 33)}"

    return random.choice([
        lambda: f"ip,nw_src={ip()},nw_dst={ip()}",
        lambda: f"udp,tp_src={random.randrange(1024, 5000)}",
        lambda: f"udp,tp_src={1 << random.randrange(10, 13):#x}/"
                f"{0xffff << random.randrange(12) & 0xffff:#x}",
        lambda: f"tcp,tp_dst={random.randrange(1, 65536)}",
        lambda: f"tcp,tcp_flags={random.choice(['+syn', '+fin', '+rst', '+psh'])}",
        lambda: f"dl_src={mac_of(random.randrange(1, 12))},ip,nw_ttl={random.randrange(60, 66)}",
        lambda: f"ipv6,ipv6_dst=fe80::/{random.randrange(10, 65)}",
        lambda: f"dl_vlan={random.randrange(1, 20)},ip",
        lambda: "ip,nw_frag=yes",
    ])()


def random_actions(groups, meters):
    return random.choice([
        "drop",
        "resubmit(,2)",
        "mod_nw_tos:32,resubmit(,2)",
        "dec_ttl,resubmit(,2)",
        "clone(push_vlan:0x8100,set_field:4103->vlan_vid,NORMAL),resubmit(,2)",
        "ct(zone=3,table=2)",
        "ct(commit,zone=4,exec(load:7->NXM_NX_CT_MARK[])),resubmit(,2)",
        "check_pkt_larger(1000)->NXM_NX_REG0[0],resubmit(,2)",
        "controller(max_len=64),resubmit(,2)",
        "learn(table=4,hard_timeout=1,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],"
        "output:NXM_OF_IN_PORT[]),resubmit(,2)",
        "sample(probability=6553,collector_set_id=1,obs_domain_id=1,obs_point_id=1),resubmit(,2)",
        f"group:{random.choice(groups)}" if groups else "drop",
        f"meter:{random.choice(meters)},resubmit(,2)" if meters else "drop",
    ])


def random_flows(n, groups=(), meters=()):
    return [f"cookie=0xc0ffee,table=1,priority={random.randrange(1, 40)},{random_match()},"
            f"actions={random_actions(groups, meters)}" for _ in range(n)] + [
        f"cookie=0xc0ffee,table=1,priority=1,arp,arp_spa=10.0.0.0/{n % 32},actions=resubmit(,2)",
        f"cookie=0xc0ffee,table=1,priority={n},icmp6,icmp_type=135,nd_target=fe80::{n:x},"
        "actions=set_field:02:00:00:00:00:01->nd_sll,resubmit(,2)"]


def change_flows(rig, _stack):
    """Flows, groups and meters; what is policy stays in each version of it."""
    groups, meters = random.sample(GROUPS, 4), random.sample(METERS, 4)
    for g in groups:
        kind = random.choice(["select", "all", "indirect"])
        buckets = ["bucket=actions=resubmit(,2)"] * (1 if kind == "indirect"
                                                     else random.randrange(1, 4))
        rig.of15("add-group", f"group_id={g},type={kind},{','.join(buckets)}")
    for m in meters:
        unit, rate = random.choice([("kbps", 100000), ("pktps", 1000), ("pktps", 100000)])
        rig.of15("add-meter", f"meter={m},{unit},stats,burst,"
                 f"bands=type=drop,rate={rate},burst_size={rate}")
    rig.of15_lines("add-flows", random_flows(150, groups, meters), "--bundle")
    rig.of15("dump-flows")
    rig.of15("mod-meter", f"meter={meters[0]},pktps,bands=type=drop,rate=500")
    rig.of15("mod-group", f"group_id={groups[0]},type=all,bucket=actions=resubmit(,2)")
    rig.of15_lines("replace-flows", POLICY + FORWARD + random_flows(50, groups, meters),
                   "--bundle")
    for command in "dump-meters", "meter-stats", "dump-groups", "dump-group-stats":
        rig.of15(command)
    # Flows that use them go with them.
    rig.of15("del-groups")
    rig.of15("del-meters")
    rig.of15("del-flows", CHURNED)


def change_ports(rig, _stack):
    vsctl = rig.vsctl
    vsctl("add-port", BRIDGE, "int1", "--", "set", "Interface", "int1", "type=internal", "--",
          "add-br", "br1", "--", "set", "Bridge", "br1", "datapath_type=weft", "--",
          "add-port", BRIDGE, "p0", "--", "set", "Interface", "p0", "type=patch",
          "options:peer=p1", "--", "add-port", "br1", "p1", "--", "set", "Interface", "p1",
          "type=patch", "options:peer=p0", timeout=PATIENCE)
    for command in (["link", "set", "int1", "up"], ["addr", "add", "10.0.0.200/24", "dev", "int1"],
                    ["link", "set", "br1", "up"]):
        run(["ip", *command], netns=rig.netns)
    vsctl("add-port", BRIDGE, "syn0", "--", "set", "Interface", "syn0", "type=synth",
          f"options:dst_mac={mac_of(S1)}", "options:rate=1000", "options:flows=500",
          f"options:n_rxq={random.randrange(1, 3)}", timeout=PATIENCE)
    vsctl("--id=@s", "create", "sFlow", "agent=lo", 'targets="127.0.0.1:6343"', "sampling=8",
          "polling=1", "--", "set", "Bridge", BRIDGE, "sflow=@s", timeout=PATIENCE)
    vsctl("--id=@p", "get", "Port", "int1", "--", "--id=@m", "create", "Mirror", "name=m",
          "select_all=true", "output_port=@p", "--", "set", "Bridge", BRIDGE, "mirrors=@m",
          timeout=PATIENCE)
    vsctl("set", "Interface", f"vif{S2}.0", f"mtu_request={random.choice([1500, 9000])}", "--",
          "add-port", BRIDGE, "tun0", "--", "set", "Interface", "tun0", "type=vxlan",
          "options:remote_ip=127.0.0.2", timeout=PATIENCE)
    rig.of15("mod-port", "int1", "down")
    vsctl("set", "Port", f"vif{G3}.0", "tag=5", timeout=PATIENCE)
    vsctl("clear", "Port", f"vif{G3}.0", "tag", "--", "clear", "Bridge", BRIDGE, "mirrors",
          "sflow", timeout=PATIENCE)
    # The plugger puts it back.
    vsctl("del-port", f"vif{G3}.0", "--", "del-port", "syn0", timeout=PATIENCE)
    vsctl("del-port", "int1", "--", "del-port", "p0", "--", "del-port", "tun0", "--", "del-br",
          "br1", timeout=PATIENCE)


def visit(rig, stack):
    """Guests that come, start over, and go in all the ways there are."""
    with contextlib.ExitStack() as own:
        some = []
        for mode in random.sample(["tap", "blast", "sink", "echo", "idle"], 3):
            domid = rig.next_visitor()
            args = {"tap": ["--netns", netns_of(rig, G1), "--ifname", f"v{domid}"],
                    "blast": stream(domid % 200 + 20, S1, 7, 1000, 100)}.get(mode, [])
            some.append(rig.start_guest(own, mode, *args, "--queues", random.randrange(1, 3),
                                        *random.choice([[], ["--static-grants"], ["--hash"],
                                                        ["--no-split", "--no-sg", "--no-gso"]]),
                                        domid=domid))
        for p in random.sample(some, 2):
            p.wait_ready(PATIENCE)
        some[0].popen.send_signal(10)  # closes and connects again
        time.sleep(random.random())
        some[1].popen.kill()
        some[1].popen.wait()
        time.sleep(random.random() / 2)


def change_connections(rig, _stack):
    appctl = rig.appctl
    appctl("dpctl/ct-set-limits", "default=100000", "zone=3,limit=50")
    appctl("dpctl/dump-conntrack", "-s")
    appctl("dpctl/flush-conntrack", "zone=1")
    appctl("dpctl/ct-get-limits", "zone=3")
    appctl("dpctl/ct-set-maxconns", str(random.choice([2000, 100000])))
    path = f"{rig.dir}/connections"
    appctl("weft/ct-export", path)
    appctl("dpctl/flush-conntrack")
    appctl("weft/ct-import", path)
    appctl("dpctl/ct-del-limits", "zone=3")
    appctl("dpctl/ct-stats-show", "verbose")
    appctl("dpctl/ct-set-maxconns", "100000")


# Not revalidator/purge: Open vSwitch aborts when that finds a flow that a
# handler is installing and the datapath then refuses.
SHOWN = ["weft/show", "weft/show --json", "netback/show", "plug/show", "synth/show",
         "dpctl/show -s", "dpctl/dump-flows -m", "dpctl/dump-conntrack", "dpif/show",
         f"dpif/dump-flows -m {BRIDGE}", "upcall/show", "coverage/show", "memory/show",
         f"fdb/show {BRIDGE}", "revalidator/wait",
         f"ofproto/trace {BRIDGE} in_port=1,tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tcp_dst=80 "
         "--ct-next trk,new", f"fdb/flush {BRIDGE}", "upcall/disable-megaflows",
         "dpctl/del-flows", "upcall/enable-megaflows", "ovs/route/show",
         "tnl/ports/show", "tnl/neigh/show", "cfm/show", "stp/show", "vlog/list"]


def show(rig, _stack):
    for command in SHOWN:
        rig.appctl(*command.split())


def chatter(rig, _stack):
    """Guests talk; what churned flows do to it does not matter here."""
    for argv in (["ping", "-q", "-f", "-w", "2", TAPS[G1]],
                 ["timeout", "4", "iperf3", "-c", TAPS[G2], "-t", "2", "-b", "100M"]):
        with contextlib.suppress(BenchError):
            run(argv, netns=netns_of(rig, G3 if argv[0] == "ping" else G1), timeout=PATIENCE)


class Loop(threading.Thread):
    """Does 'step' until the end is near, at least once, or until it fails.

    Children die with the thread that started them, so each loop ends its own."""

    def __init__(self, rig, stop, name, step):
        super().__init__(name=name)
        self.rig, self.stop, self.step = rig, stop, step
        self.rounds, self.wrong = 0, None

    def run(self):
        try:
            with contextlib.ExitStack() as stack:
                while not self.rounds or not self.stop.is_set():
                    self.step(self.rig, stack)
                    self.rounds += 1
        except Exception:  # whatever it is, it is a failure of the test
            self.wrong = traceback.format_exc(limit=-2)


def churn(rig):
    stop = threading.Event()
    loops = [Loop(rig, stop, name, step) for name, step in (
        ("openflow", change_flows), ("ports", change_ports), ("visitors", visit),
        ("connections", change_connections), ("dumps", show), ("traffic", chatter))]
    for loop in loops:
        loop.start()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and rig.vswitchd.popen.poll() is None and \
            not any(loop.wrong for loop in loops):
        time.sleep(0.2)
    stop.set()
    for loop in loops:
        loop.join()
    for loop in loops:
        check(loop.name, loop.wrong)
    print("# rounds: " + ", ".join(f"{loop.name} {loop.rounds}" for loop in loops), flush=True)


# --- what must hold afterwards --------------------------------------------------------------

def forwards(rig):
    """Waits until each guest's packets get where they should."""
    # Packets from whoever sends, packets to whoever is sent to; v by a alone.
    watched = [(f"vif{d}.0", 0) for d in (B1, B2, A, I1, I2)] + \
              [(f"vif{d}.0", 1) for d in (S1, S2, V)]
    end = time.monotonic() + PATIENCE
    before, after = rig.counters(), {}

    def grown(name, way):
        return after.get(name, (0, 0))[way] >= before.get(name, (0, 0))[way] + 100

    def all_grown():
        after.update(rig.counters())
        return all(grown(*w) for w in watched)

    def reached(src, dst):
        with contextlib.suppress(BenchError):
            run(["ping", "-q", "-c", "1", "-W", "2", TAPS[dst]], netns=netns_of(rig, src))
            return True
        return False

    waited(rig, all_grown, end)
    stuck = [f"{name} {'to' if way else 'from'} guest" for name, way in watched
             if not grown(name, way)]
    stuck += [f"vif{src}.0 to vif{dst}.0" for src, dst in itertools.permutations(TAPS, 2)
              if not waited(rig, functools.partial(reached, src, dst), end)]
    return "stuck: " + ", ".join(stuck) if stuck else ""


def newcomers(rig):
    """Two vifs that were not there before reach each other."""
    with contextlib.ExitStack() as stack:
        echo, ping = rig.next_visitor(), rig.next_visitor()
        guest(rig, stack, "echo", echo)
        p = guest(rig, stack, "blast", ping, "--ping", *stream(ping % 200, echo, 9, 100, 1),
                  "--count", 10)
        return p.popen.wait(PATIENCE) and p.tail()


def poller_sleeps(rig):
    """How often polling threads have slept."""
    total = 0
    for path in glob.glob(f"/proc/{rig.vswitchd.pid}/task/*/status"):
        try:
            with open(path, encoding="ascii") as f:
                text = f.read()
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has ended since
        if text.startswith("Name:\tweft-poll"):
            total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.M).group(1))
    return total


def stays_awake(rig):
    """With naps off a polling thread does not sleep between packets that come every 100 us."""
    rig.vsctl("set", "Open_vSwitch", ".", "other_config:pmd-maxsleep=0", "--", "add-port", BRIDGE,
              "pace", "--", "set", "Interface", "pace", "type=synth", "options:rate=10000",
              "options:flows=1", f"options:dst_mac={mac_of(S1)}", timeout=PATIENCE)

    def so_far():
        return rig.counters()["pace"][0], poller_sleeps(rig)

    waited(rig, lambda: so_far()[0] > 0, time.monotonic() + PATIENCE)
    before = so_far()
    waited(rig, lambda: so_far()[0] >= before[0] + 5000, time.monotonic() + PATIENCE)
    packets, sleeps = (b - a for a, b in zip(before, so_far()))
    rig.vsctl("del-port", "pace", "--", "set", "Open_vSwitch", ".",
              "other_config:pmd-maxsleep=500", timeout=PATIENCE)
    return f"{sleeps} sleeps, {packets} packets" if sleeps > packets / 4 or packets < 5000 else ""


def sink_report(victim):
    """What the sink counted; ends it."""
    victim.stop(PATIENCE)
    with open(victim.log, encoding="utf-8") as f:
        text = f.read()
    return json.loads(text[text.rindex("\n{") if "\n{" in text else text.index("{"):])["verify"]


def policy_held(rig, victim):
    seen = sink_report(victim)
    if seen["frames"] or seen["segments"]:
        return f"v got denied packets: {seen}"
    return "" if seen["foreign"] else f"v got nothing at all: {seen}"


def policy_mattered(rig, stack):
    """Without the rules, both would have been heard."""
    rig.of15_lines("replace-flows", ["actions=NORMAL"], "--bundle")
    victim = guest(rig, stack, "sink", V, "--verify", "--json", "--dst-port", DENIED)
    before = rig.counters()[f"vif{V}.0"][1]
    waited(rig, lambda: rig.counters()[f"vif{V}.0"][1] > before + 2000,
           time.monotonic() + PATIENCE)
    seen = sink_report(victim)
    return "" if seen["frames"] > 0 and seen["streams"] >= 100 else f"v counts nothing: {seen}"


def ours(report):
    """ThreadSanitizer does not see how Open vSwitch's libraries, which are built without it,
    order their own accesses and locks.  A report without a line of ours, but for main() and
    who created the threads, is about them alone."""
    if not report.lstrip().startswith("WARNING: ThreadSanitizer"):
        return True
    files = re.findall(r"^ +#\d+ .* (\S+):\d+ \(",
                       re.split(r"^  (?:Location|Thread) ", report, flags=re.M)[0], re.M)
    return any(re.match(r"(vswitch|netback|vlan|lib|tools|build)/", f) and
               f != "vswitch/main_vswitchd.c" for f in files)


def sanitizers_said(logs):
    said = []
    for path in sorted(glob.glob(f"{logs}/sanitizer.*")):
        with open(path, encoding="utf-8", errors="replace") as f:
            for report in re.split(r"^={18}$", f.read(), flags=re.M):
                said += [] if not ours(report) else re.findall(
                    r"^(?:SUMMARY: .*|.*runtime error: .*|.*FATAL: .*)$", report, re.M)
    return f"{len(said)} reports: " + "; ".join(dict.fromkeys(said)) if said else ""


def complaints(rig):
    with open(f"{rig.dir}/weft-vswitchd.log", encoding="utf-8", errors="replace") as f:
        found = [line for line in f if re.search(r"\|EMER\||assertion|unreachable", line)]
    return " ".join(found[:3])


def restart(rig):
    """An orderly end that leaves everything to a successor, and the successor."""
    status = rig.end_switch()
    check("exit", status and f"exit status {status}")
    rig.start_switch()
    check("forwards-after-restart", forwards(rig))


def test(rig):
    rig.of15_lines("replace-flows", POLICY + FORWARD, "--bundle")
    with contextlib.ExitStack() as stack:
        victim = start_guests(rig, stack)
        iperf = ["iperf3", "-s"]
        rig.spawn(stack, "iperf3", iperf, netns=netns_of(rig, G2))
        check("forwards-before", forwards(rig))
        churn(rig)
        if rig.vswitchd.popen.poll() is None:
            rig.of15_lines("replace-flows", POLICY + FORWARD, "--bundle")
            check("forwards", forwards(rig))
            check("newcomers", newcomers(rig))
            if "/thread/" in PROGRAMS:
                print("skip churn-stays-awake: a turn takes longer than the pause, with TSan")
            else:
                check("stays-awake", stays_awake(rig))
            restart(rig)
            check("policy", policy_held(rig, victim))
            check("policy-mattered", policy_mattered(rig, stack))
            status = rig.end_switch("--cleanup")
            check("exit-cleanup", status and f"exit status {status}")
        else:
            check("alive", f"the switch ended with status {rig.vswitchd.popen.returncode}: "
                  f"{rig.vswitchd.tail()}")
        check("no-asserts", complaints(rig))


def keep_logs(directory):
    """Into $KEEP_LOGS, if that is set."""
    to = os.environ.get("KEEP_LOGS")
    for path in glob.glob(f"{directory}/*.log") + glob.glob(f"{directory}/sanitizer.*"):
        if to:
            shutil.copy(path, to)


def main():
    if not os.access(f"{PROGRAMS}/weft-vswitchd", os.X_OK):
        sys.exit(f"{PROGRAMS}/weft-vswitchd is not there")
    options = types.SimpleNamespace(keep=False, pmd_maxsleep=500, pmd_mask="0x1", set=[])
    settings = ["weft-small-mbufs=8192", "weft-large-mbufs=512"]
    # Names of namespaces are files; ours, and all other files, go with us.
    os.makedirs("/run/netns", exist_ok=True)
    for private in "/run/netns", "/dev/shm":
        run(["mount", "-t", "tmpfs", "none", private])
    tempfile.tempdir = "/dev/shm"
    random.seed(seed := int(os.environ.get("CHURN_SEED", "1")))
    print(f"# {SECONDS:.0f} s of changes, seed {seed}, programs of {PROGRAMS}", flush=True)
    with tempfile.TemporaryDirectory() as logs:
        # All reports are wanted, and judged by sanitizers_said().
        for name, more in (("ASAN_OPTIONS", ""), ("LSAN_OPTIONS", ""), ("UBSAN_OPTIONS", ""),
                           ("TSAN_OPTIONS", ":halt_on_error=0:exitcode=0")):
            given = os.environ.get(name, "")
            os.environ[name] = f"{given}:log_path={logs}/sanitizer{more}".lstrip(":")
        try:
            with ChurnRig(PROGRAMS, options, settings) as rig:
                try:
                    test(rig)
                finally:
                    keep_logs(rig.dir)
        except BenchError as e:
            check("runs", e)
        check("sanitizers-silent", sanitizers_said(logs))
        keep_logs(logs)
    # 2: not for want of time, and not to be tried again.
    sys.exit(2 if HARD.intersection(failures) else bool(failures))


main()
