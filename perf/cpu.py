"""CPU time of the switch's threads, by what they do, and its memory.

Time is the kernel's own account in nanoseconds, user and system together (the
first number of /proc/PID/task/TID/schedstat).
"""
import os

# A thread's name tells its work.
NETBACK = "netback"  # one per vif queue: vif1.0-q0
PMD = "pmd"          # polling threads of either datapath, and the ticker that wakes them
MAIN = "main"        # packets of ports that are not polled, such as TAPs: the main thread under
                     # netdev, weft-wait under weft
OTHER = "other"      # handlers, revalidators, xenbus, ...


def _group(pid, tid, name):
    if name.startswith("vif"):
        return NETBACK
    if name.startswith(("pmd", "weft-poll")) or name == "weft-ticker":
        return PMD
    return MAIN if tid == pid or name.startswith("weft-wait") else OTHER


def snapshot(pid):
    """CPU nanoseconds so far: {tid: (group, ns)}."""
    threads = {}
    for entry in os.listdir(f"/proc/{pid}/task"):
        base = f"/proc/{pid}/task/{entry}/"
        try:
            with open(base + "comm", encoding="utf-8", errors="replace") as f:
                name = f.read().strip()
            with open(base + "schedstat", encoding="ascii") as f:
                ns = int(f.read().split()[0])
        except FileNotFoundError:
            continue  # ended meanwhile
        threads[entry] = (_group(pid, int(entry), name), ns)
    return threads


def seconds_between(before, after):
    """CPU seconds by group; threads that ended in between are not counted."""
    spent = {NETBACK: 0.0, PMD: 0.0, MAIN: 0.0, OTHER: 0.0}
    for tid, (group, ns) in after.items():
        spent[group] += (ns - before.get(tid, (group, 0))[1]) / 1e9
    return spent


def own_memory_bytes(pid):
    """Resident memory that is this process's alone.  Packet buffers, which
    all vifs share, and guests' pages are shared memory and not in it."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon:"))
