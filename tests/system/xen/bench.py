"""Makes a table, and JSON beside it, of what cases/90-bench.sh measured.

bench.py RAW DIR: reads lines "= ROW SIDE VALUE", SIDE being k (the kernel's
xen-netback and a Linux bridge) or w (Weft).  The n-th values of both sides make
the n-th pair; a ratio above 1 says that Weft is better.  Writes DIR/bench.txt
and DIR/bench.json; prints the table, and all ratios in a last line.
"""
import collections
import json
import statistics
import sys

GOALS = {"guest-guest": 1.0, "dom0-guest": 0.75, "guest-dom0": 0.75}
PAIRS = 5


def read(path):
    rows = collections.defaultdict(lambda: {"k": [], "w": []})
    with open(path, encoding="ascii", errors="replace") as raw:
        for line in raw:
            word = line.split()
            if len(word) == 4 and word[0] == "=":
                rows[word[1]][word[2]].append(float(word[3]))
            elif word and word[0] == "=":
                sys.exit(f"not measured: {line.strip()}")
    return rows


def summary(name, sides):
    less_is_better = name.startswith("ping")
    pairs = list(zip(sides["k"], sides["w"]))
    if len(pairs) < PAIRS or min(min(p) for p in pairs) <= 0:
        sys.exit(f"{name}: {len(pairs)} pairs: {pairs}")
    ratios = [k / w if less_is_better else w / k for k, w in pairs]
    return {"unit": "ms" if less_is_better else "Mbit/s",
            "kernel": sides["k"], "weft": sides["w"], "ratios": ratios,
            "ratio": statistics.median(ratios), "goal": GOALS.get(name)}


def table(rows):
    yield (f"{'':18}{'xen-netback':>12}{'weft':>9}         ratio, median (spread)    goal")
    for name, r in rows.items():
        goal = f">= {r['goal']:.2f}" if r["goal"] else ""
        digits = 3 if r["unit"] == "ms" else 0
        yield (f"{name:18}{statistics.median(r['kernel']):12.{digits}f}"
               f"{statistics.median(r['weft']):9.{digits}f} {r['unit']:7}"
               f" {r['ratio']:5.2f} ({min(r['ratios']):.2f}-{max(r['ratios']):.2f})"
               f"{goal:>18}")


def main():
    rows = {name: summary(name, sides) for name, sides in read(sys.argv[1]).items()}
    if not rows:
        sys.exit("nothing was measured")
    text = "\n".join(table(rows)) + "\n"
    with open(f"{sys.argv[2]}/bench.txt", "w", encoding="ascii") as out:
        out.write(text)
    with open(f"{sys.argv[2]}/bench.json", "w", encoding="ascii") as out:
        json.dump({"time": "virtual, 4 ns an instruction", "rows": rows}, out, indent=1)
    print(text + ", ".join(f"{name} {r['ratio']:.2f} ({min(r['ratios']):.2f}-{max(r['ratios']):.2f})"
                           for name, r in rows.items()))


main()
