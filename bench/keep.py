"""What is kept of a run: `results/latest.json`, the last three as `run-1.json` (the newest) to `run-3.json`, and the pages.

`python -m bench.keep` makes the pages anew from `latest.json`: `results/README.md`, `results/bench.svg` and the
table between the two markers of the README.
"""

import json
from pathlib import Path
from typing import Any

from bench import machine, plot, table
from bench.measure import Line
from bench.rows import FILES

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
KEPT = 3
SCHEMA = "rankguard.bench/1"

HEAD = """# Results of the bench

Made by `make bench`; do not edit it by hand. What each row measures: [docs/bench.md](../../docs/bench.md).

"""


def keep(run: dict[str, Any], folder: Path = RESULTS) -> None:
    """Write a run as the newest; the oldest of four goes. A run of some rows replaces those of the latest one only."""
    folder.mkdir(exist_ok=True)
    latest = folder / "latest.json"
    if run["partial"] and latest.exists():
        run = _merged(json.loads(latest.read_text()), run)
    else:
        for number in range(KEPT, 1, -1):
            older = folder / f"run-{number - 1}.json"
            if older.exists():
                older.replace(folder / f"run-{number}.json")
        _write(folder / "run-1.json", run)
    _write(latest, run)


def pages(folder: Path = RESULTS, readme: Path = README) -> None:
    """The pages and the plot of the latest run, and the table in the README."""
    run = json.loads((folder / "latest.json").read_text())
    (folder / "README.md").write_text(page(run, _kept(folder)))
    (folder / "bench.svg").write_text(plot.svg(_lines(run)))
    readme.write_text(with_table(readme.read_text(), run))


def page(run: dict[str, Any], kept: list[dict[str, Any]]) -> str:
    """`results/README.md`."""
    parts = [HEAD, _where(run), "\n", table.markdown(_lines(run)), "\n![the times as a plot](bench.svg)\n"]
    failed = [(line, series) for line in _lines(run) for series in (line.ours, *line.peers) if series.failed]
    if failed:
        parts.append("\n## Repeats that failed\n\n")
        parts += [
            f"- {line.row}, {line.what}, {series.name}: {why}\n" for line, series in failed for why in series.failed
        ]
    if len(kept) > 1:
        parts.append("\n## The last runs\n\nMedians of rankguard, the newest first.\n\n")
        parts.append(
            f"| | work | {' | '.join(each['machine']['date'] for each in kept)} |\n|{'---|' * (len(kept) + 2)}\n"
        )
        medians = [{(line.row, line.what): line for line in _lines(each)} for each in kept]
        for row, what in medians[0]:
            cells = [_median(each.get((row, what))) for each in medians]
            parts.append(f"| {row} | {what} | {' | '.join(cells)} |\n")
    return "".join(parts)


def with_table(text: str, run: dict[str, Any]) -> str:
    """The README with the table between its markers. Raises `ValueError` where they are not there."""
    before, begin, rest = text.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md: expected {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{table.short(_lines(run))}\n{_where(run)}{END}{after}"


def _where(run: dict[str, Any]) -> str:
    here = run["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    others = f"others used {run['others_before'] * 100:.0f} % of the processors before and {run['others_during'] * 100:.0f} % during it"
    quiet = (
        "quiet"
        if machine.quiet(run["others_before"], run["others_during"])
        else "**not quiet, so the times are noise**"
    )
    return (
        f"{here['date']}, {here['processors']} processors ({here['model']}), {here['memory_bytes'] / 2**30:.0f} GiB, "
        f"{here['system']}, Linux {here['kernel']}, Python {here['python']}; {versions}. "
        f"The machine was {quiet}: load {here['load_at_start']} at the start, {others}. "
        f"The run took {run['took_s'] / 60:.0f} min{', not all rows in one' if run.get('mixed') else ''}.\n"
    )


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    fresh = {line["row"] for line in new["lines"]}
    lines = [line for line in old["lines"] if line["row"] not in fresh] + new["lines"]
    versions = {**old["versions"], **new["versions"]}
    return {
        **new,
        "mixed": True,
        "versions": versions,
        "lines": sorted(lines, key=lambda line: list(FILES).index(line["row"])),
    }


def _kept(folder: Path) -> list[dict[str, Any]]:
    paths = [folder / f"run-{number}.json" for number in range(1, KEPT + 1)]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def _median(line: Line | None) -> str:
    return "–" if line is None else table.cell(line.ours, line.unit)


def _lines(run: dict[str, Any]) -> list[Line]:
    return [Line.of(line) for line in run["lines"]]


def _write(path: Path, run: dict[str, Any]) -> None:
    path.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    pages()
