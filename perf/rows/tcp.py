"""TCP between two guests: iperf3 between two namespaces.

    g1: iperf3 > eth0 (TAP) > weft-netfront > ring > switch > ring > ... > g2
    r1: iperf3 > tap0 (TAP) > bench_tap_relay ......................... > r2

Both carry TCP segments of up to 64 KiB with blank checksums end to end.
"""
import contextlib
import json
import subprocess
import time

import cpu
from report import Figure, Goal
from rig import PERF_BIN, BenchError, Process, run as run_command
from rows import stream

NAME = "tcp"
TITLE = "TCP between two guests, against a bare TAP-to-TAP relay"
PEER = "bare TAP-to-TAP relay with segmentation offload, a thread a direction"


def await_ping(netns, ip, timeout=15):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            run_command(["ping", "-c", "1", "-W", "1", ip], netns=netns)
            return
        except BenchError:
            time.sleep(0.1)
    raise BenchError(f"no ping from {netns} to {ip}")


def setup_weft(rig, stack, *how):
    """Two guests; 'how' are further options of weft-netfront."""
    guests = []
    for i in (1, 2):
        netns = f"{rig.netns}-g{i}"
        rig.make_netns(stack, netns)
        guests.append(rig.start_guest(stack, "tap", "--netns", netns, "--ifname", "eth0",
                                      "--ip", f"10.97.0.{i}/24", *how))
    for g in guests:
        g.wait_ready()
    await_ping(f"{rig.netns}-g1", "10.97.0.2")
    return guests


def _setup_relay(rig, stack):
    ends = []
    for i in (1, 2):
        netns = f"{rig.netns}-r{i}"
        rig.make_netns(stack, netns)
        ends.append(f"{netns},tap0")
    relay = subprocess.Popen([f"{PERF_BIN}/bench_tap_relay"] + ends, stdout=subprocess.PIPE)
    stack.callback(relay.wait)
    stack.callback(relay.kill)
    stack.callback(relay.stdout.close)
    if relay.stdout.readline() != b"ready\n":
        raise BenchError("bench_tap_relay did not start")
    for i in (1, 2):
        netns = f"{rig.netns}-r{i}"
        run_command(["ip", "addr", "add", f"10.98.0.{i}/24", "dev", "tap0"], netns=netns)
        run_command(["ip", "link", "set", "tap0", "up"], netns=netns)
    await_ping(f"{rig.netns}-r1", "10.98.0.2")
    return relay


def _iperf(rig, client, server, ip, seconds):
    """Gb/s received, of one connection."""
    with contextlib.ExitStack() as stack:
        listener = Process(rig, "iperf3-server", ["iperf3", "-s", "-1", "--forceflush"],
                           netns=server)
        stack.callback(listener.stop)
        await_listener(server)
        text = run_command(["iperf3", "-c", ip, "-t", f"{seconds:g}", "-O", "1", "-J"],
                           netns=client, timeout=seconds + 30)
    return json.loads(text)["end"]["sum_received"]["bits_per_second"] / 1e9


def await_listener(netns, timeout=5):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if ":5201" in run_command(["ss", "-Hltn", "sport", "=", ":5201"], netns=netns):
            return
        time.sleep(0.02)
    raise BenchError("iperf3's server does not listen")


def run(bench):
    weft, relay, busy = [], [], []
    seconds = max(1, round(bench.seconds))  # iperf3 takes whole seconds
    with bench.rig() as rig, contextlib.ExitStack() as stack:
        guests = setup_weft(rig, stack)
        _setup_relay(rig, stack)
        ns = rig.netns
        for i in range(bench.pairs):
            bench.say(f"{NAME} {i + 1}/{bench.pairs}: Weft")
            before = cpu.snapshot(rig.vswitchd.pid)
            with stream.profile(bench, rig, "tcp"):
                weft.append(_iperf(rig, f"{ns}-g1", f"{ns}-g2", "10.97.0.2", seconds))
            spent = cpu.seconds_between(before, cpu.snapshot(rig.vswitchd.pid))
            # iperf3 ran a second longer, which it left out of its result.
            busy.append((spent[cpu.NETBACK] + spent[cpu.PMD]) / (seconds + 1))
            bench.say(f"{NAME} {i + 1}/{bench.pairs}: relay")
            relay.append(_iperf(rig, f"{ns}-r1", f"{ns}-r2", "10.98.0.2", seconds))
        for g in guests:
            g.check()
        rig.vswitchd.check()
    return [
        Figure(NAME, "TCP guest to guest", "Gb/s", weft, PEER, relay, Goal(0.6, on="ratio")),
        Figure(NAME, "TCP, switch threads", "cores busy", busy),
    ]
