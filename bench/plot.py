"""The times of a run as a picture: a dot for each median, a line from the least to the most, on a logarithmic axis.

Written by hand as SVG: no package, and it follows the reader's light or dark scheme. Lines in other units than time are
in the table alone.
"""

import math
from collections.abc import Callable
from html import escape

from bench.measure import Line, Series

SECONDS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0}
WIDTH, LEFT, RIGHT_MARGIN, TOP, STEP = 960, 330, 40, 60, 34
NAME = 56
"""How much room a name takes."""
STYLE = """
svg { font: 12px system-ui, sans-serif; --ink: #1f2328; --dim: #59636e; --grid: #d1d9e0; --ours: #0969da; --paper: #ffffff }
@media (prefers-color-scheme: dark) { svg { --ink: #f0f6fc; --dim: #9198a1; --grid: #3d444d; --ours: #4493f8; --paper: #0d1117 } }
.paper { fill: var(--paper) } text { fill: var(--ink) } .dim { fill: var(--dim); font-size: 10px } .grid { stroke: var(--grid) }
.ours { fill: var(--ours); stroke: var(--ours) } .peer { fill: var(--paper); stroke: var(--dim) } .reach { stroke: var(--ours); stroke-dasharray: 2 2 }
"""


def svg(lines: list[Line]) -> str:
    """The picture; an empty one where nothing was timed."""
    timed = [line for line in lines if line.unit in SECONDS and line.row != "i" and _seen(line)]
    values = [value * SECONDS[line.unit] for line in timed for each in _seen(line) for value in each.span or ()]
    low = math.floor(math.log10(min(values, default=1e-3)))
    high = math.ceil(math.log10(max(values, default=1.0) * 1.001))
    height = TOP + STEP * len(timed) + 30

    def across(seconds: float) -> float:
        return LEFT + (math.log10(seconds) - low) / max(high - low, 1) * (WIDTH - LEFT - RIGHT_MARGIN)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="times of rankguard and its peers">',
        f'<style>{STYLE}</style><rect class="paper" width="{WIDTH}" height="{height}"/>',
        '<circle class="ours" cx="14" cy="18" r="5"/><text x="26" y="22">rankguard</text>',
        '<circle class="peer" cx="114" cy="18" r="5"/><text x="126" y="22">its peers</text>',
        '<text class="dim" x="200" y="22">median, least to most; logarithmic; to the left is better</text>',
    ]
    for power in range(low, high + 1):
        x = across(10.0**power)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP - 10}" x2="{x:.1f}" y2="{height - 20}"/>')
        parts.append(f'<text class="dim" x="{x:.1f}" y="{TOP - 16}" text-anchor="middle">{_tick(power)}</text>')
    for number, line in enumerate(timed):
        y = TOP + STEP * number + 8
        parts.append(f'<text x="8" y="{y + 4}">{escape(_label(line))}</text>')
        parts += _dots(line, y, across)
    return "\n".join([*parts, "</svg>", ""])


def _seen(line: Line) -> list[Series]:
    return [each for each in (line.ours, *line.peers) if each.median]


def _dots(line: Line, y: float, across: Callable[[float], float]) -> list[str]:
    """Of one line; ours on top. A name that would lie on the one before it goes below its dot."""
    parts, last, scale = [], -math.inf, SECONDS[line.unit]
    for series in sorted(_seen(line), key=lambda each: (each is line.ours, each.median)):
        kind = "ours" if series is line.ours else "peer"
        middle, least, most = (across(value * scale) for value in (series.median, *series.span))
        parts.append(f'<line class="{kind}" x1="{least:.1f}" y1="{y}" x2="{most:.1f}" y2="{y}" stroke-width="2"/>')
        title = f"<title>{escape(series.name)}: {series.median:.3g} {line.unit}</title>"
        parts.append(f'<circle class="{kind}" cx="{middle:.1f}" cy="{y}" r="5">{title}</circle>')
        if kind == "peer":
            below = middle - last < NAME
            last = -math.inf if below else middle
            at = f'x="{middle:.1f}" y="{y + 15 if below else y - 8}"'
            parts.append(f'<text class="dim" {at} text-anchor="middle">{escape(_brief(series.name))}</text>')
    return parts


def _brief(name: str) -> str:
    return name.removeprefix("torch.multiprocessing.")


def _label(line: Line) -> str:
    text = f"{line.row}  {line.label or line.what.replace('`', '')}"
    return text if len(text) <= 54 else f"{text[:52]}…"


def _tick(power: int) -> str:
    unit, base = next((unit, base) for unit, base in (("s", 0), ("ms", -3), ("µs", -6)) if power >= base or base == -6)
    return f"{10 ** (power - base):g} {unit}"
