"""The lines of a run as a table: one for the terminal, one in Markdown. What failed or is missing stands in its cell."""

from collections.abc import Iterable

from bench.measure import RIGHT, Line, Series, times

HEAD = (
    "",
    "work",
    "rankguard: median [least – most], repeats",
    "beside it (rankguard as a multiple of it)",
    "to reach",
    "reached",
)
LAUNCHERS = ("torchrun", "mpirun", "torch.multiprocessing.spawn", "SGLang")
"""Peers that somebody may use instead."""
REACHED = {True: "yes", False: "**no**", None: "–"}


def markdown(lines: Iterable[Line]) -> str:
    """A table for a page."""
    rows: list[tuple[str, ...]] = [HEAD, ("---",) * len(HEAD)]
    for line in lines:
        beside = "; ".join(_peer(line, peer) for peer in line.peers) or "–"
        work = line.what + (f" ({line.note})" if line.note else "")
        reached = REACHED[line.reached] if line.reach else ""
        rows.append((line.row, work, cell(line.ours, line.unit), beside, line.reach, reached))
    return "".join(f"| {' | '.join(cell.replace('|', '·') for cell in row)} |\n" for row in rows)


def short(lines: Iterable[Line]) -> str:
    """For a first look: medians beside those of other launchers, and what was promised and not reached."""
    promised = [line for line in lines if line.reach]
    beside = [line for line in promised if any(peer.name in LAUNCHERS for peer in line.peers)]
    rows: list[tuple[str, ...]] = [("", "work", "rankguard", *LAUNCHERS), ("---",) * (3 + len(LAUNCHERS))]
    for line in beside:
        peers = {peer.name: peer for peer in line.peers}
        others = (_median(peers[name], line.unit) if name in peers else "–" for name in LAUNCHERS)
        rows.append((line.row, line.what, f"**{_median(line.ours, line.unit)}**", *others))
    missed = [
        f"{line.row}, {line.what}: {_median(line.ours, line.unit)} ({line.reach})"
        for line in promised
        if line.reached is False
    ]
    told = f"{sum(line.reached is True for line in promised)} of {len(promised)} figures are what they were to be"
    told += f"; not yet: {'; '.join(missed)}.\n" if missed else ".\n"
    return "".join(f"| {' | '.join(cell.replace('|', '·') for cell in row)} |\n" for row in rows) + f"\n{told}"


def terminal(line: Line) -> str:
    """A line of the table as soon as it is known."""
    verdict = {True: "reached", False: "NOT REACHED", None: "unknown"}[line.reached] if line.reach else ""
    text = [f"{line.row}  {line.what}" + (f" ({line.note})" if line.note else "")]
    text.append(
        f"     {'rankguard':28} {cell(line.ours, line.unit)}" + (f"   {line.reach}: {verdict}" if line.reach else "")
    )
    for peer in line.peers:
        multiple = times(line.ours, peer)
        beside = f"   × {_number(multiple)}" if multiple is not None and line.unit != RIGHT else ""
        text.append(f"     {peer.name:28} {cell(peer, line.unit)}{beside}")
    for series in (line.ours, *line.peers):
        text += [f"     failed: {series.name}: {why}" for why in series.failed[:3]]
    return "\n".join(text).replace("**", "")


def _peer(line: Line, peer: Series) -> str:
    multiple = times(line.ours, peer)
    beside = f" (× {_number(multiple)})" if multiple is not None and line.unit != RIGHT else ""
    return f"{peer.name} {cell(peer, line.unit)}{beside}"


def cell(series: Series, unit: str) -> str:
    """Median, least, most, how many; or why there is none."""
    failed = f", {len(series.failed)} failed" if series.failed else ""
    if series.median is None or series.span is None:
        return f"not available: {_short(series.missing)}" if series.missing else f"all failed ({len(series.failed)})"
    if unit == RIGHT:
        return f"{sum(series.values):.0f} of {len(series.values)}{failed}"
    least, most = (_number(value) for value in series.span)
    return f"**{_number(series.median)}**{' ' * bool(unit)}{unit} [{least} – {most}], {len(series.values)}{failed}"


def _median(series: Series, unit: str) -> str:
    return cell(series, unit).partition(" [")[0].replace("**", "")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"


def _number(value: float) -> str:
    """Three figures that count, thousands with commas."""
    if float(value).is_integer() or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 if abs(value) < 10 else 1
    while round(abs(value), digits) < 10 ** (1 - digits) and digits < 5:
        digits += 1
    return f"{value:.{digits}f}"
