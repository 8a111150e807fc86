"""Figures, their goals, the table and the JSON."""
import json
from dataclasses import dataclass, field
from itertools import groupby
from statistics import median


@dataclass
class Goal:
    """What a figure should reach: its value, or its ratio to the peer."""
    limit: float
    on: str = "value"      # "value" or "ratio"
    at_most: bool = False  # else at least

    def text(self):
        sign, unit = "<=" if self.at_most else ">=", " x" if self.on == "ratio" else ""
        return f"{sign} {self.limit:g}{unit}"


@dataclass
class Figure:
    """One measured quantity, and the peer's on the same work in the same run:
    values[i] and peer_values[i] are neighbours in time."""
    row: str
    title: str
    unit: str
    values: list
    peer: str = ""
    peer_values: list = field(default_factory=list)
    goal: Goal = None
    note: str = ""
    digits: int = 3
    # What else was measured: {what: (ours, the peer's)}, in order of display.
    beside: dict = field(default_factory=dict)

    @property
    def value(self):
        return median(self.values) if self.values else None

    @property
    def peer_value(self):
        return median(self.peer_values) if self.peer_values else None

    @property
    def ratio(self):
        """Median of the pairs' ratios, which drifts of the machine spare."""
        pairs = [v / p for v, p in zip(self.values, self.peer_values) if p]
        return median(pairs) if pairs else None

    @property
    def met(self):
        """None without a goal, or where the ratio could not be had."""
        if not self.goal:
            return None
        got = self.value if self.goal.on == "value" else self.ratio
        if got is None:
            return None  # not measured
        return got <= self.goal.limit if self.goal.at_most else got >= self.goal.limit

    def to_json(self):
        return {
            "row": self.row, "title": self.title, "unit": self.unit,
            "median": self.value, "values": self.values,
            "peer": self.peer or None, "peer_median": self.peer_value,
            "peer_values": self.peer_values, "ratio": self.ratio,
            "goal": self.goal.text() if self.goal else None, "met": self.met,
            "note": self.note or None,
            "beside": {what: {"values": ours, "peer_values": theirs}
                       for what, (ours, theirs) in self.beside.items()},
        }


def number(v, digits=3):
    return f"{v:.0f}" if abs(v) >= 10 ** digits else f"{v:.{digits}g}"


def spread(values, digits=3):
    """'median (min..max)'; a single value stands alone."""
    if not values:
        return "-"
    middle = number(median(values), digits)
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values), digits)}..{number(max(values), digits)})"


HEAD = ("what", "unit", "Weft", "peer", "ratio", "goal", "met")


def _line(f, beside):
    line = [f.title, f.unit, spread(f.values, f.digits), spread(f.peer_values, f.digits),
            f"{f.ratio:.2f} x" if f.ratio is not None else "-",
            f.goal.text() if f.goal else "-",
            {True: "yes", False: "NO", None: "-"}[f.met]]
    for what in beside:
        pair = f.beside.get(what, ([], []))
        line.append(" : ".join(number(median(v)) if v else "-" for v in pair)
                    if what in f.beside else "")
    return line


def _notes(figures):
    """A note that several figures of a row share is said once, of the row."""
    titles = {}
    for f in figures:
        if f.note:
            titles.setdefault((f.row, f.note), []).append(f.title)
    return [f"{t[0] if len(t) == 1 else row}: {note}" for (row, note), t in titles.items()]


def _block(figures, beside):
    """Rows that show the same columns."""
    lines = [list(HEAD) + beside] + [_line(f, beside) for f in figures]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    out = []
    row = None
    for f, line in zip([None] + figures, lines):
        if f and f.row != row:
            row = f.row
            out.append("-" * (sum(widths) + 2 * len(widths) - 2))
        out.append("  ".join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip())
    return out + [""]


def table(figures):
    columns = {}
    for f in figures:
        of_row = columns.setdefault(f.row, [])
        of_row += [what for what in f.beside if what not in of_row]
    out = []
    for beside, block in groupby(figures, lambda f: columns[f.row]):
        out += _block(list(block), beside)
    peers = dict.fromkeys((f.row, f.peer) for f in figures if f.peer)
    for peer in dict.fromkeys(peer for _, peer in peers):
        out.append(f"peer of {', '.join(row for row, p in peers if p == peer)}: {peer}")
    if any(columns.values()):
        out.append("a : b in a column: Weft's and the peer's median")
    return "\n".join(out + _notes(figures))


def write_json(path, machine, figures, failed):
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"machine": machine, "figures": [x.to_json() for x in figures],
                   "failed_rows": failed}, f, indent=1)
        f.write("\n")
