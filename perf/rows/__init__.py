"""The benchmarks, one file each.

A row module offers

    NAME         what --rows calls it
    TITLE        one line
    run(bench)   measures, returns a list of report.Figure

'bench' is a Bench (bench.py): the rig, the number of pairs, the seconds of
one measurement, and bench.say() for progress.
"""
from . import blast, fairness, idle, ring, ring64, tcp

ALL = (tcp, ring64, blast, ring, idle, fairness)
