"""A glimpse as lines: never wider than the terminal, readable without colour, whatever the ranks say."""

import re
from typing import Any

import pytest
from rich.cells import cell_len

from rankguard.cli.front.frame import WIDEST, Painter

GIB = 1 << 30


def row(rank: int, phase: str = "starting", **more: Any) -> list[Any]:
    told = {"text": None, "done": None, "total": None, "unit": None, "silent": 0.5, "rss": GIB, "ready": None} | more
    return [rank, phase, *told.values()]


HOSTILE = [
    row(0, text="loading shard 12 of 30 of a model with a long name that goes on and on", done=12, total=30),
    row(1, "ready", ready=41.23, rss=14 * GIB),
    row(2, text="加载模型权重中，请稍候，这需要一些时间，请不要关闭窗口", done=1, total=3, silent=42.0),
    row(3, text="\x1b[2J\x1b[31mevil\r\nx\u202e" + "y" * 10000, done=-3, total=0, silent=700.0, rss=None),
    row(4, done=1200, unit="steps", silent=12.0),
    row(5, text="🤗 Loading z" + "\u0301" * 5000 + "\ufe0f", done=1, total=1),
    row(100000, "ended", rss=None, silent=None),
]


def glimpse(rows: list[list[Any]], **more: Any) -> dict[str, Any]:
    n = more.pop("n", len(rows))
    known = {"n": n, "elapsed": 47.3, "expects": True, "ready": 1, "executing": n, "memory": [61 * GIB, 100 * GIB]}
    counts: dict[str, int] = {}
    for told in rows:
        counts[told[1]] = counts.get(told[1], 0) + 1
    return known | {"rows": rows, "counts": counts} | more


def plain(lines: list[str]) -> list[str]:
    """Without colours; nothing else may be in a line that a terminal obeys."""
    told = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in lines]
    assert all(line.isprintable() for line in told)
    return told


@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_terminal(unicode: bool) -> None:
    painter = Painter(unicode=unicode)
    for columns in range(20, 130):
        lines = plain(painter.table(glimpse(HOSTILE), columns)) + plain(painter.line(glimpse([], n=512), columns))
        assert max(map(cell_len, lines)) <= min(columns - 1, WIDEST)
        assert len(lines) == 1 + len(HOSTILE) + 1 + 1
        if not unicode:
            assert "".join(lines).isascii()


def test_a_table_at_80_columns() -> None:
    rows = [
        row(0, text="loading shard 12 of 30", done=12, total=30, unit="shards", rss=int(14.1 * GIB)),
        row(1, done=2999, total=3000, unit="tensors"),
        row(2, "ready", ready=41.23),
        row(3, text="allocating host cache", silent=42.4),
    ]
    expected = """\
rank  phase     status                                              GiB  silent
   0  starting  loading shard 12 of 30        ━━━━──────   40 %    14.1
   1  starting  2999 of 3000 tensors          ━━━━━━━━━─   99 %     1.0
   2  ready     after 41.2 s                                        1.0
   3  starting  allocating host cache                               1.0    42 s
1 of 4 ready · 47 s · memory 61.0 of 100.0 GiB  ━━━━━━──────────────────"""
    assert "\n".join(plain(Painter().table(glimpse(rows), 80))) == expected


def test_many_ranks_in_a_few_lines() -> None:
    rows = [row(17), row(400)]
    counts = {"starting": 200, "ready": 312}

    lines = plain(Painter().table(glimpse(rows, n=512, ready=312, counts=counts), 80))

    assert lines[-2:] == [
        "and 510 more: 312 ready, 198 starting",
        "312 of 512 ready · 47 s · memory 61.0 of 100.0 GiB  ━━━━━━━━━━━━━━──────────",
    ]


@pytest.mark.parametrize(
    ("used", "style"), [(79, ""), (80, "\x1b[33m"), (91, "\x1b[33m"), (92, "\x1b[1;31m"), (101, "\x1b[1;31m")]
)
def test_memory_near_its_limit_is_marked(used: int, style: str) -> None:
    line = Painter().table(glimpse([], n=1, memory=[used * GIB, 100 * GIB]), 80)[-1]
    assert f"memory {style}{used}.0 of 100.0 GiB" in line


@pytest.mark.parametrize(
    ("memory", "expected"),
    [([None, None], ""), ([3 * GIB, None], " · memory 3.0 GiB"), ([None, GIB], "")],
)
def test_memory_is_told_as_far_as_it_is_known(memory: list[int | None], expected: str) -> None:
    lines = plain(Painter().line(glimpse([], n=8, memory=memory), 80))
    assert lines == [f"8 ranks running, no output yet · 47 s{expected}"]


def test_ranks_that_are_still_being_started_are_counted() -> None:
    assert plain(Painter().line(glimpse([], n=64, executing=12, memory=[None, None]), 80)) == [
        "64 ranks, 12 started · 47 s"
    ]
