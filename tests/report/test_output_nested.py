"""Bars below a bar become states of one line; everything else passes as it is, however it was cut into reads."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rankguard.report.lines import Lines
from rankguard.report.nested import Nested

UP = b"\x1b[A"
CHUNKS = st.lists(
    st.sampled_from(
        [b"\n", b"\r", UP, b"\x1b", b"[", b"A", b"a", b"bar", b"\x1b[32m", b"\n\rinner" + UP, b"x\x00\xff"]
    ),
    max_size=25,
)


def passed(chunks: list[bytes]) -> bytes:
    nested = Nested()
    return b"".join(nested.feed(chunk) for chunk in chunks) + nested.flush()


def tqdm(epochs: int, batches: int) -> list[bytes]:
    """The writes of `for _ in trange(epochs): for _ in trange(batches, position=1, leave=False)`."""
    writes = []
    for epoch in range(epochs):
        writes.append(b"\repoch %d" % epoch)
        for batch in range(batches):
            writes += [b"\n", b"\r  batch %d" % batch, UP]
        writes += [b"\n", b"\r          ", UP]
    return [*writes, b"\repoch %d" % epochs, b"\n"]


@pytest.mark.parametrize("at_once", [False, True])
def test_two_bars_of_tqdm_are_one_line(at_once: bool) -> None:
    writes = tqdm(3, 5)
    lines = Lines()

    text = passed([b"".join(writes)] if at_once else writes)

    assert lines.feed(b"before\n" + text + b"after\n") == [b"before\nepoch 3\nafter\n"]


def test_a_third_bar() -> None:
    assert passed([b"\rone", b"\n", b"\n", b"\rthree", UP, UP, b"\n\rtwo" + UP, b"\rone\n"]) == (
        b"\rone\rthree\rtwo\rone\n"
    )


@given(CHUNKS)
@example([b"\rbar", b"\n", b"\n", b"\rbar", UP, UP])
@example([b"\rbar", b"\n", b"\n", b"\rbar", UP, b"a"])
@example([b"\rbar", b"\n\rin", b"\x1b[32mner\x1b[32m", UP, b"a"])
def test_any_split_gives_the_same(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)

    assert passed(chunks) == passed([whole]) == passed([whole[n : n + 1] for n in range(len(whole))])
    assert re.sub(rb"\n|\x1b\[A", b"", passed(chunks)) == re.sub(rb"\n|\x1b\[A", b"", whole)
    if UP not in whole or b"\r" not in whole:
        assert passed(chunks) == whole


@pytest.mark.parametrize("data", [b"line\n", b"dos\r\n", b"50%", b"a\nb\r\nc\n", b"\r50%"])
def test_what_is_no_end_of_a_bar_does_not_wait(data: bytes) -> None:
    assert Nested().feed(data) == data


def test_the_end_of_a_bar_waits_for_a_byte() -> None:
    nested = Nested()

    assert (nested.feed(b"\r100%\n"), nested.held) == (b"\r100%", b"\n")
    assert (nested.feed(b"next\n"), nested.held) == (b"\nnext\n", b"")
    assert (nested.feed(b"\r100%\n"), nested.feed(b"\r0%"), nested.feed(b"\r1%")) == (b"\r100%", b"", b"\n\r0%\r1%")
