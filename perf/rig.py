"""The rig: a host of our own, in private namespaces and a private directory.

    namespace weft-bench-PID        weft-localxen, ovsdb-server, weft-vswitchd
    namespace weft-bench-PID-NAME   whatever a row asks for

Everything that is made is undone in reverse order, also after a failure or
Ctrl-C.  Should this process be killed, its children die with it (parent death
signal), and the next run removes namespaces whose PID is gone.
"""
import contextlib
import ctypes
import json
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILT = os.path.join(ROOT, "build/bin")
PERF_BIN = os.path.join(ROOT, "build/plain/perf")
BRIDGE = "br0"
PREFIX = "weft-bench-"
# As on a host, the run directory is memory and the database's is on a disk.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
PROGRAMS = ("weft-localxen", "weft-netfront", "weft-vswitchd", "weft-controllerd", "weft-flowd",
            "weft-cell", "weft-migrate",
            "ovsdb-server", "ovsdb-tool", "ovs-vsctl", "ovs-ofctl", "ovs-appctl")

_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1


class BenchError(Exception):
    """A sentence for the user."""


def _child_setup():
    # Ctrl-C is for us: we end the children, in order.
    os.setpgid(0, 0)
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def run(argv, netns=None, env=None, timeout=60):
    """Runs a command to its end and returns what it printed."""
    if netns:
        argv = ["ip", "netns", "exec", netns] + argv
    done = subprocess.run(argv, env=env, timeout=timeout, text=True, check=False,
                          capture_output=True, preexec_fn=_child_setup)
    if done.returncode:
        raise BenchError(f"{' '.join(argv)}: exit status {done.returncode}: "
                         f"{(done.stderr or done.stdout).strip()[-600:]}")
    return done.stdout


def sweep_leftovers():
    """Removes the namespaces and directories of runs that were killed."""
    def dead(name):
        found = re.match(PREFIX + r"(\d+)", name)
        return found and not os.path.exists(f"/proc/{found.group(1)}")

    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else ():
        if dead(name):
            run(["ip", "netns", "del", name])
    for parent in {MEMORY, tempfile.gettempdir()}:
        for name in os.listdir(parent):
            if dead(name):
                shutil.rmtree(os.path.join(parent, name), ignore_errors=True)


class Process:
    """A program that runs until stop().  Its output goes to a log file."""

    def __init__(self, rig, name, argv, netns=None, env=None, ready=None):
        """'ready' makes argv[-1] the number of a descriptor that the program
        writes to, or closes, when it is ready; wait for it with wait_ready()."""
        self.name = name
        self.log = os.path.join(rig.dir, f"{name}.log")
        self._ready = -1
        pass_fds = ()
        theirs = -1
        if ready:
            self._ready, theirs = os.pipe()
            argv = argv + [ready, str(theirs)]
            pass_fds = (theirs,)
        if netns:
            argv = ["ip", "netns", "exec", netns] + argv
        with open(self.log, "ab") as log:
            self.popen = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL,
                                          stdout=log, stderr=log, pass_fds=pass_fds,
                                          preexec_fn=_child_setup)
        if theirs >= 0:
            os.close(theirs)

    @property
    def pid(self):
        return self.popen.pid

    def tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-12:])

    def fail(self, what):
        raise BenchError(f"{self.name} {what}; its last words:\n{self.tail()}")

    def wait_ready(self, timeout=30):
        readable = select.select([self._ready], [], [], timeout)[0]
        data = os.read(self._ready, 1) if readable else b""
        os.close(self._ready)
        self._ready = -1
        if not data:
            self.fail("did not become ready" if not readable else "ended early")

    def check(self):
        if self.popen.poll() is not None:
            self.fail(f"ended with status {self.popen.returncode}")

    def stop(self, timeout=10):
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


class Rig(contextlib.ExitStack):
    """The host, up between __enter__ and __exit__.  What a row adds goes away
    with the row's own stack (contextlib.ExitStack), or with the rig's."""

    def __init__(self, programs, options, settings):
        """'programs' is their directory, 'settings' are other_config entries
        of the Open_vSwitch table."""
        super().__init__()
        self.programs = programs
        self.options = options
        self.settings = settings
        self.netns = f"{PREFIX}{os.getpid()}"
        self.dir = None
        self.env = None
        self.vswitchd = None
        self._domid = 0

    # --- building ---------------------------------------------------------

    def __enter__(self):
        super().__enter__()
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def _start(self):
        self.dir = tempfile.mkdtemp(prefix=self.netns + "-", dir=MEMORY)
        self.callback(self._remove_dir, self.dir)
        disk = tempfile.mkdtemp(prefix=self.netns + "-db-")
        self.callback(self._remove_dir, disk)
        self.env = dict(os.environ, OVS_RUNDIR=self.dir, OVS_LOGDIR=self.dir, OVS_DBDIR=disk,
                        OVS_SYSCONFDIR=self.dir, XENSTORED_PATH=f"{self.dir}/xen/xenstored")
        self.make_netns(self, self.netns)
        self._start_localxen()
        self._start_ovsdb()
        self._configure()
        self._start_vswitchd()

    def _remove_dir(self, path):
        if self.options.keep:
            print(f"kept: {path}")
        else:
            shutil.rmtree(path, ignore_errors=True)

    @staticmethod
    def make_netns(stack, name):
        run(["ip", "netns", "add", name])
        stack.callback(run, ["ip", "netns", "del", name])
        run(["ip", "link", "set", "lo", "up"], netns=name)

    def spawn(self, stack, name, argv, **how):
        p = Process(self, name, argv, env=self.env, **how)
        stack.callback(p.stop)
        return p

    def _start_localxen(self):
        p = self.spawn(self, "weft-localxen",
                       [f"{self.programs}/weft-localxen", "--dir", f"{self.dir}/xen"], ready="--ready-fd")
        p.wait_ready()

    def _start_ovsdb(self):
        db = f"{self.env['OVS_DBDIR']}/conf.db"
        run([f"{self.programs}/ovsdb-tool", "create", db, f"{ROOT}/build/share/vswitch.ovsschema"])
        self.spawn(self, "ovsdb-server",
                   [f"{self.programs}/ovsdb-server", db, f"--remote=punix:{self.dir}/db.sock",
                    f"--unixctl={self.dir}/ovsdb.ctl", "-vconsole:info", "-vsyslog:off"],
                   netns=self.netns)

    def vsctl(self, *args, timeout=60):
        # --retry: the database's socket may not be there yet.
        return run([f"{self.programs}/ovs-vsctl", "--retry", f"--timeout={timeout}", "-vsyslog:off",
                    f"--db=unix:{self.dir}/db.sock"] + list(args), env=self.env,
                   timeout=timeout + 5)

    def _configure(self):
        o = self.options
        settings = ["dpdk-init=true", "userspace-tso-enable=true",
                    f"pmd-maxsleep={o.pmd_maxsleep}", f"pmd-cpu-mask={o.pmd_mask}",
                    f"weft-hv=\"local:{self.dir}/xen\""] + self.settings + o.set
        self.vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".",
                   *[f"other_config:{s}" for s in settings], "--", "add-br", BRIDGE, "--",
                   "set", "Bridge", BRIDGE, "datapath_type=netdev")

    def _start_vswitchd(self):
        self.vswitchd = self.spawn(
            self, "weft-vswitchd",
            [f"{self.programs}/weft-vswitchd", f"unix:{self.dir}/db.sock",
             f"--unixctl={self.dir}/vswitchd.ctl", "--enable-synth", "-vconsole:info",
             "-vsyslog:off"],
            netns=self.netns)
        try:
            # Returns when the switch has taken the change over.
            self.vsctl("set", "Open_vSwitch", ".", "external_ids:weft-bench=up", timeout=90)
        except BenchError:
            self.vswitchd.fail("did not take its configuration")
        if self.has_datapath(self.options.datapath):
            self.vsctl("set", "Bridge", BRIDGE, f"datapath_type={self.options.datapath}")

    # --- using ------------------------------------------------------------

    def appctl(self, *args):
        return run([f"{self.programs}/ovs-appctl", "-t", f"{self.dir}/vswitchd.ctl"] + list(args),
                   env=self.env)

    def ofctl(self, *args):
        return run([f"{self.programs}/ovs-ofctl"] + list(args), env=self.env)

    def add_flows(self, bridge, flows):
        """OpenFlow rules, all at once."""
        path = f"{self.dir}/flows"
        with open(path, "w", encoding="ascii") as f:
            f.write("\n".join(flows) + "\n")
        self.ofctl("--bundle", "add-flows", self.bridge_socket(bridge), path)

    def bridge_socket(self, bridge):
        """Where ovs-ofctl finds it."""
        return f"unix:{self.dir}/{bridge}.mgmt"

    def has_datapath(self, name):
        return name in re.findall(r"\w+", self.vsctl("get", "Open_vSwitch", ".", "datapath_types"))

    def synth(self, *ports):
        """Counters of ports of type synth: {"tsc":, "tsc_hz":, "ports": {name: {...}}}."""
        return json.loads(self.appctl("synth/show", "--json", *ports))

    def next_domid(self):
        self._domid += 1
        return self._domid

    def start_guest(self, stack, mode, *args, domid=None):
        """A weft-netfront.  It is connected after wait_ready()."""
        domid = domid or self.next_domid()
        p = self.spawn(stack, f"guest-{domid}-{mode}",
                       [f"{self.programs}/weft-netfront", "--create", "--dir", f"{self.dir}/xen",
                        "--domid", str(domid), "--mac", mac_of(domid), "--bridge", BRIDGE,
                        "--mode", mode] + [str(a) for a in args], ready="--ready-fd")
        p.domid = domid
        return p

    def add_taps(self, stack, *names):
        """TAP ports of the switch, up, in its namespace."""
        for name in names:
            self.vsctl("add-port", BRIDGE, name, "--", "set", "Interface", name, "type=tap")
            stack.callback(self._del_port, name)
            run(["sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1"], netns=self.netns)
            run(["ip", "link", "set", name, "up"], netns=self.netns)

    def _del_port(self, name):
        if self.vswitchd.popen.poll() is None:
            self.vsctl("del-port", BRIDGE, name)

    def port_numbers(self):
        """{port name: OpenFlow port number}."""
        rows = json.loads(self.vsctl("--format=json", "--columns=name,ofport", "list",
                                     "Interface"))["data"]
        return {name: ofport for name, ofport in rows if isinstance(ofport, int)}

    def port_counters(self):
        """{OpenFlow port number: (tx packets, tx bytes)}, as the switch sees
        'tx': what it gave to whoever is behind the port."""
        text = self.ofctl("dump-ports", self.bridge_socket(BRIDGE))
        counters = {}
        for port, packets, octets in re.findall(
                r"port\s+(\d+): rx .*?tx pkts=(\d+), bytes=(\d+)", text, re.S):
            counters[int(port)] = (int(packets), int(octets))
        return counters

    def port_number(self, name, timeout=15):
        """Of a port that may only just be appearing."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            number = self.port_numbers().get(name)
            if number is not None and number > 0:
                return number
            time.sleep(0.05)
        raise BenchError(f"the switch made no port {name}; its last words:\n"
                         f"{self.vswitchd.tail()}")


def mac_of(domid):
    return f"02:00:00:00:{domid >> 8:02x}:{domid & 255:02x}"


def take_programs(stack):
    """Sets the programs aside, until 'stack' ends: a build in the middle of a
    run shall not change what is measured.  Returns their directory."""
    missing = [p for p in PROGRAMS if not os.access(f"{BUILT}/{p}", os.X_OK)]
    if missing:
        raise BenchError(f"not built: {', '.join(missing)}; run make bench")
    if os.geteuid():
        raise BenchError("namespaces and TAPs need root: run make bench as root")
    taken = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-bin-"))
    for p in PROGRAMS:
        shutil.copy2(f"{BUILT}/{p}", taken)
    return taken
