"""Turns are fair, a failed repeat is shown, a contender that is missing says why; the last three runs are kept."""

import json

import pytest
from bench import keep, plot, table
from bench.measure import RIGHT, Contender, Line, NotThere, Series, at_most, take_turns, times


def run_of(date: str, lines: list[Line], *, partial: bool = False) -> dict:
    machine = {
        "date": date, "processors": 2, "model": "x", "memory_bytes": 8 << 30, "kernel": "6", "system": "s", "python": "3",
        "load_at_start": 0.1,
    }  # fmt: skip
    return {
        "machine": machine, "versions": {"torch": "2"}, "others_before": 0.0, "others_during": 0.5, "took_s": 60.0,
        "partial": partial, "lines": [line.data() for line in lines],
    }  # fmt: skip


LINE = Line(
    "b", "work | of b", "ms", Series("rankguard", [3.0, 1.0, 2.0]),
    [Series("torchrun", [500.0], ["Failed: <no>"]), Series("mpirun", missing="not installed")], "≤ 60 ms", True,
)  # fmt: skip


def test_contenders_take_turns_and_each_begins_a_round() -> None:
    order: list[str] = []

    def once(name):
        return lambda number: order.append(f"{name}{number}") or {"s": 1.0}

    take_turns([Contender("a", once("a"), 3, warm_up=False), Contender("b", once("b"), 2, warm_up=True)])

    assert order == ["b0", "a0", "b0", "b1", "a1", "a2"]


def test_what_fails_is_kept_and_what_is_missing_is_asked_once() -> None:
    asked: list[int] = []

    def missing(number: int) -> dict[str, float]:
        asked.append(number)
        raise NotThere("not installed")

    def fails_once(number: int) -> dict[str, float]:
        if number == 1:
            raise RuntimeError("no")
        return {"s": number}

    contenders = [Contender("a", fails_once, 3, warm_up=False), Contender("b", missing, 3, warm_up=False)]
    take_turns(contenders)

    assert contenders[0].series("s", 10.0) == Series("a", [0.0, 20.0], ["RuntimeError: no"])
    assert contenders[1].series("s") == Series("b", missing="not installed")
    assert asked == [0]
    assert (at_most(contenders[0].series("s"), 1.0), at_most(contenders[1].series("s"), 1.0)) == (True, None)


def test_a_warm_up_that_fails_is_no_repeat() -> None:
    numbers = iter([RuntimeError("cold"), {"s": 1.0}])

    def once(_number: int) -> dict[str, float]:
        if isinstance(told := next(numbers), Exception):
            raise told
        return told

    contender = Contender("a", once, 1)
    take_turns([contender])

    assert contender.series("s") == Series("a", [1.0])


def test_the_table() -> None:
    counted = Line(
        "h", "culprit", RIGHT, Series("rankguard", [1, 1, 0]), [Series("torchrun", [0, 1])], "all", False, "1 wrong"
    )

    rows = table.markdown([LINE, counted]).splitlines()[2:]

    assert rows == [
        "| b | work · of b | **2** ms [1 – 3], 3 | torchrun **500** ms [500 – 500], 1, 1 failed (× 0.0040); mpirun not available: not installed | ≤ 60 ms | yes |",
        "| h | culprit (1 wrong) | 2 of 3 | torchrun 1 of 2 | all | **no** |",
    ]
    assert "failed: torchrun: Failed: <no>" in table.terminal(LINE)
    assert times(LINE.ours, LINE.peers[1]) is None


def test_the_plot_has_all_times_and_no_markup_of_others() -> None:
    picture = plot.svg([LINE, Line("c", "a < b", "s", Series("rankguard", [1.0]))])

    assert picture.count("<circle") == 2 + 3
    assert "a &lt; b" in picture
    assert plot.svg([]).endswith("</svg>\n")


def test_the_last_three_runs_are_kept_and_the_pages_show_the_newest(tmp_path) -> None:
    readme = tmp_path / "FRONT.md"
    readme.write_text(f"before\n{keep.BEGIN}\nold\n{keep.END}\nafter\n")

    for number in range(5):
        keep.keep(run_of(f"day {number}", [LINE]), tmp_path)
    keep.pages(tmp_path, readme)

    dates = {path.name: json.loads(path.read_text())["machine"]["date"] for path in tmp_path.glob("*.json")}
    assert dates == {"latest.json": "day 4", "run-1.json": "day 4", "run-2.json": "day 3", "run-3.json": "day 2"}
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "not quiet" in text
    page = (tmp_path / "README.md").read_text()
    assert "day 4" in page
    assert "Failed: <no>" in page
    keep.pages(tmp_path, readme)
    assert readme.read_text() == text


def test_a_run_of_some_rows_replaces_these_alone(tmp_path) -> None:
    other = Line("c", "work of c", "s", Series("rankguard", [9.0]))
    newer = Line("b", "work of b", "ms", Series("rankguard", [7.0]))

    keep.keep(run_of("day 1", [LINE, other]), tmp_path)
    keep.keep(run_of("day 2", [newer], partial=True), tmp_path)

    latest = json.loads((tmp_path / "latest.json").read_text())
    assert [Line.of(line) for line in latest["lines"]] == [newer, other]
    assert latest["mixed"] is True
    assert json.loads((tmp_path / "run-1.json").read_text())["machine"]["date"] == "day 1"


def test_a_readme_without_markers_is_left_alone() -> None:
    with pytest.raises(ValueError, match="expected <!-- bench -->"):
        keep.with_table("no markers", run_of("day", [LINE]))


def test_the_readme_has_the_table_of_the_latest_run() -> None:
    if not (keep.RESULTS / "latest.json").exists():
        pytest.skip("the bench has not been run")
    run = json.loads((keep.RESULTS / "latest.json").read_text())

    assert keep.with_table(keep.README.read_text(), run) == keep.README.read_text()
    assert (keep.RESULTS / "bench.svg").read_text() == plot.svg([Line.of(line) for line in run["lines"]])
