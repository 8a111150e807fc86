"""Weft's benchmarks, each beside its peer in the same run.

Weft and its peer take turns (A B A B ...), so that a slow minute of the
machine hits both; the ratio is the median of the pairs' ratios.  The table
goes to the terminal, everything measured to build/bench/results.json, a chart
to build/bench/results.svg.
"""
import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
import time

import chart
import report
import rows
from rig import ROOT, BenchError, Rig, sweep_leftovers, take_programs

OUT = os.path.join(ROOT, "build/bench")


class Bench:
    """What a row gets to work with."""

    def __init__(self, options, programs):
        self.options = options
        self.programs = programs
        self.pairs = options.pairs
        self.seconds = options.seconds
        self._tty = sys.stderr.isatty()

    def rig(self, *settings):
        """A host for one row; use it as a context manager."""
        return Rig(self.programs, self.options, list(settings))

    def say(self, text):
        if self._tty:
            sys.stderr.write(f"\r\033[K{text}")
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def unsay(self):
        if self._tty:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def _read(path, default=""):
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except OSError:
        return default


def describe_machine(options):
    model = next((line.split(":", 1)[1].strip() for line in _read("/proc/cpuinfo").splitlines()
                  if line.startswith("model name")), platform.machine())
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "cpu": model, "cores": os.cpu_count(), "kernel": platform.release(),
        "hugepages": int(_read("/proc/sys/vm/nr_hugepages", "0")),
        "grant_cost_ns": int(os.environ.get("WEFT_GRANT_COST_NS") or 0),
        "load_before": os.getloadavg()[0],
        "pairs": options.pairs, "seconds": options.seconds,
        "pmd_cpu_mask": options.pmd_mask, "pmd_maxsleep_us": options.pmd_maxsleep,
        "other_config": options.set, "datapath": options.datapath, "datapaths": options.datapaths,
    }


def header(m):
    lines = [f"{m['date']}: {m['cores']} cores of {m['cpu']}, Linux {m['kernel']}, "
             f"{m['hugepages']} hugepages",
             f"{m['pairs']} pairs of {m['seconds']:g} s, interleaved; "
             f"median (min..max); load before: {m['load_before']:.2f}"]
    if m["grant_cost_ns"]:
        lines.append(f"GRANT COST: each grant operation is charged {m['grant_cost_ns']} ns "
                     "(WEFT_GRANT_COST_NS)")
    if m["other_config"]:
        lines.append("other_config: " + " ".join(m["other_config"]))
    return "\n".join(lines)


def parse_args():
    names = [r.NAME for r in rows.ALL]
    p = argparse.ArgumentParser(prog="perf/run.sh", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter,
                                epilog="rows:\n" + "\n".join(f"  {r.NAME:10} {r.TITLE}"
                                                             for r in rows.ALL))
    p.add_argument("--rows", default=",".join(names), help="comma-separated; default: all")
    p.add_argument("--pairs", type=int, default=5, help="of a measurement and its peer's (5)")
    p.add_argument("--seconds", type=float, default=3, help="one measurement takes (3)")
    p.add_argument("--pmd-mask", default="0x2", help="pmd-cpu-mask (0x2)")
    p.add_argument("--pmd-maxsleep", type=int, default=500, help="pmd-maxsleep, us (500)")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                   help="another other_config entry of the switch; repeatable")
    p.add_argument("--datapath", default="weft", metavar="TYPE",
                   help="between guests (%(default)s; netdev where the binary does not have it)")
    p.add_argument("--datapaths", default="weft,netdev,netdev+smc", metavar="LIST",
                   help="which to compare in rows between synthetic ports (all: %(default)s)")
    p.add_argument("--only", default="", metavar="TEXT",
                   help="of rows between synthetic ports, only lines whose title contains TEXT")
    p.add_argument("--vifs", type=int, default=1000, help="of the idle row (1,000)")
    p.add_argument("--perf", metavar="DIR",
                   help="record a profile of the switch during each measurement into DIR")
    p.add_argument("--keep", action="store_true", help="keep logs and databases until the next run")
    options = p.parse_args()
    options.rows = options.rows.split(",")
    options.datapaths = options.datapaths.split(",")
    unknown = sorted(set(options.rows) - set(names))
    if unknown or options.pairs < 1 or options.seconds <= 0:
        p.error(f"no such row: {', '.join(unknown)}" if unknown
                else "--pairs and --seconds: above 0")
    return options


def run_rows(bench):
    """Returns (figures, {row: why it failed})."""
    figures, failed = [], {}
    for row in rows.ALL:
        if row.NAME not in bench.options.rows:
            continue
        bench.say(f"{row.NAME}: {row.TITLE}")
        try:
            figures += row.run(bench)
        except (BenchError, OSError, subprocess.TimeoutExpired) as e:
            failed[row.NAME] = str(e)
        bench.unsay()
    return figures, failed


def main():
    options = parse_args()
    # Like Ctrl-C: everything is taken down on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        sweep_leftovers()
        machine = describe_machine(options)
        with contextlib.ExitStack() as stack:
            bench = Bench(options, take_programs(stack))
            print(header(machine) + "\n", flush=True)
            figures, failed = run_rows(bench)
    except BenchError as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbench: interrupted; everything is taken down", file=sys.stderr)
        return 130
    if figures:
        print(report.table(figures))
        os.makedirs(OUT, exist_ok=True)
        report.write_json(f"{OUT}/results.json", machine, figures, failed)
        chart.write_svg(f"{OUT}/results.svg", header(machine), figures)
        print("\nalso in build/bench/results.json and results.svg")
    for name, why in failed.items():
        print(f"\nrow {name} failed: {why}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
