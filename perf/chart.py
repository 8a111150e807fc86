"""The chart: one panel a figure that has a peer or a goal, as plain SVG.

Bars are medians, thin lines the spread, a dashed line the goal.
"""
from html import escape
from statistics import median

from report import spread

WIDTH, PANEL, LEFT, RIGHT, TOP = 860, 74, 90, 150, 84
WEFT, PEER, GOAL, TEXT, FAINT = "#2563a8", "#9aa5b1", "#c2410c", "#1f2933", "#616e7c"


def _text(x, y, s, size=12, fill=TEXT, anchor="start", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" '
            f'text-anchor="{anchor}" font-weight="{weight}" paint-order="stroke" '
            f'stroke="white" stroke-width="4">{escape(s)}</text>')


def _bar(y, label, values, digits, scale, fill):
    x = [LEFT + scale * v for v in (min(values), max(values))]
    out = [_text(LEFT - 8, y + 12, label, anchor="end", fill=FAINT),
           f'<rect x="{LEFT}" y="{y}" width="{max(scale * median(values), 1):.1f}" height="16" '
           f'rx="2" fill="{fill}"/>']
    if len(values) > 1:
        out.append(f'<path d="M{x[0]:.1f} {y + 8}H{x[1]:.1f}M{x[0]:.1f} {y + 4}v8'
                   f'M{x[1]:.1f} {y + 4}v8" stroke="{TEXT}" fill="none"/>')
    out.append(_text(x[1] + 8, y + 12, spread(values, digits)))
    return out


def _goal_value(f):
    """Where the goal lies on the figure's own axis."""
    if not f.goal:
        return None
    if f.goal.on == "value":
        return f.goal.limit
    return f.goal.limit * f.peer_value if f.peer_value else None


def _panel(f, y):
    goal = _goal_value(f)
    top = max(f.values + f.peer_values + ([goal] if goal else []) + [1e-12])
    scale = (WIDTH - LEFT - RIGHT) / top
    verdict = {True: " (met)", False: " (not met)", None: ""}[f.met]
    title = f"{f.title}, {f.unit}" if f.unit else f.title
    if f.ratio is not None:
        title += f": {f.ratio:.2f} x"
    out = [_text(LEFT, y + 12, title, 13, weight="bold")]
    if f.goal:
        out.append(_text(WIDTH - 12, y + 12, f"goal {f.goal.text()}{verdict}", fill=GOAL,
                         anchor="end"))
    if f.values:
        out += _bar(y + 20, "Weft", f.values, f.digits, scale, WEFT)
    if f.peer_values:
        out += _bar(y + 40, "peer", f.peer_values, f.digits, scale, PEER)
    if goal:
        x = LEFT + scale * goal
        out.append(f'<path d="M{x:.1f} {y + 17}v{42 if f.peer_values else 22}" stroke="{GOAL}" '
                   f'stroke-dasharray="4 3" fill="none"/>')
    return sorted(out, key=lambda element: element.startswith("<text"))


def write_svg(path, header, figures):
    shown = [f for f in figures if f.peer_values or (f.goal and f.values)]
    height = TOP + PANEL * len(shown) + 12
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
           f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
           f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
           _text(LEFT, 26, "Weft beside its peers", 18, weight="bold")]
    out += [_text(LEFT, 44 + 15 * i, line, 11, FAINT)
            for i, line in enumerate(header.splitlines()[:3])]
    for i, f in enumerate(shown):
        out += _panel(f, TOP + PANEL * i)
    out.append("</svg>")
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n")
