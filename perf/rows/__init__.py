"""The benchmarks, one file each.

A row module offers

    NAME         what --rows calls it
    TITLE        one line
    run(bench)   measures, returns a list of report.Figure

'bench' is a Bench (bench.py): the rig, the number of pairs, the seconds of
one measurement, and bench.say() for progress.
"""
from . import (acl, attack, blast, collect, fairness, flows, forward, idle, migrate, migrate_live, newflows,
               pool, pool_ovn, quiet, restart, ring, ring64, ring_vhost, stateful, tcp, vlan)

ALL = (forward, flows, acl, attack, vlan, stateful, newflows, quiet, tcp, ring64, ring_vhost,
       blast, ring, idle, fairness, restart, pool, pool_ovn, collect,
       migrate, migrate_live)
