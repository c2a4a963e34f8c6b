"""Whatever a verdict holds, the block stays within what a log collector keeps, and no terminal obeys a rank."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.report import samples

from rankguard.model import (
    Attempt,
    Cause,
    Confidence,
    Culprit,
    Ending,
    Evidence,
    ExceptionInfo,
    Family,
    Left,
    Memory,
    MemoryState,
    OrderBasis,
    Phase,
    Progress,
    RankOutcome,
    Responsible,
    Retry,
    StoppedBy,
    Survivor,
    Teardown,
)
from rankguard.report.text import error_block, final_report, last_line, progress_line

NASTY = [
    "\x1b[2J",
    "\x1b]0;t\x07",
    "\r\n",
    "\u202e",
    "\ud800",
    "漢字" * 60,
    "🧨" * 200,
    "x" * 3000,
    "\n" * 40,
    " " * 300,
    "\t|",
]
texts = st.one_of(
    st.text(max_size=200), st.sampled_from(NASTY), st.lists(st.sampled_from(NASTY), max_size=8).map("".join)
)
words = st.one_of(st.none(), texts)
counts = st.integers(min_value=0, max_value=2**50)
maybe = st.one_of(st.none(), counts)
spans = st.floats(min_value=0, max_value=1e7)
endings = st.one_of(
    st.builds(Ending, st.just("exit"), code=st.one_of(st.none(), st.integers(0, 255))),
    st.builds(
        Ending,
        st.just("signal"),
        signal=words,
        number=st.one_of(st.none(), st.integers(1, 64)),
        core_dumped=st.booleans(),
    ),
    st.just(Ending("alive")),
)
memories = st.builds(Memory, maybe, maybe)
exceptions = st.builds(ExceptionInfo, texts, texts, traceback=words)


def tuples(of, most=12):
    return st.lists(of, max_size=most).map(tuple)


causes = st.builds(
    Cause,
    texts,
    st.sampled_from(Family),
    st.sampled_from(Confidence),
    texts,
    exception=st.one_of(st.none(), exceptions),
    subject_pid=maybe,
    evidence=tuples(st.builds(Evidence, texts, texts)),
    responsible=tuples(st.builds(Responsible, maybe, texts, st.sampled_from(Confidence))),
)
culprits = st.builds(
    Culprit,
    rank=maybe,
    name=words,
    role=texts,
    local_rank=maybe,
    node=texts,
    pid=maybe,
    phase=st.sampled_from(Phase),
    was_ready=st.booleans(),
    attempt=st.integers(0, 9),
    ending=endings,
    cause=causes,
    at=texts,
    elapsed_s=spans,
    detected_in_ms=st.none(),
    status=words,
    progress=st.one_of(st.none(), st.builds(Progress, spans, st.one_of(st.none(), spans), words)),
    memory=memories,
    traceback=words,
    stacks=words,
    log_tail=tuples(texts, 20),
    log_path=words,
)
relations = st.sampled_from(["culprit", "collateral", "independent", "stopped", "finished"])
outcomes = st.builds(
    RankOutcome,
    rank=st.one_of(st.none(), st.integers(0, 63)),
    name=words,
    node=texts,
    pid=maybe,
    relation=relations,
    phase=st.sampled_from(Phase),
    ending=endings,
    cause=st.one_of(st.none(), causes),
    ready_after_s=st.one_of(st.none(), spans),
    ended_after_s=st.none(),
    memory=memories,
    log_path=words,
)
teardowns = st.builds(
    Teardown,
    st.one_of(st.none(), spans),
    tuples(counts),
    tuples(st.builds(Survivor, counts, texts, texts)),
    tuples(st.builds(Left, texts, texts, maybe)),
)


@st.composite
def verdicts(draw):
    few = draw(st.lists(outcomes, min_size=1, max_size=5))
    ranks = tuple(few[n % len(few)].replace(rank=n) for n in range(draw(st.integers(1, 64))))
    return samples.verdict(
        draw(st.sampled_from(["failed", "failed", "failed", "interrupted", "succeeded"])),
        draw(st.integers(0, 255)),
        draw(texts),
        run_id=draw(texts),
        retry=Retry(draw(st.sampled_from(["yes", "no", "elsewhere", "unknown"])), draw(texts)),
        failed_at=draw(words),
        world_size=len(ranks),
        nodes=draw(tuples(texts)),
        culprit=draw(st.one_of(st.none(), culprits)),
        either=draw(tuples(st.integers(0, 63))),
        order=draw(st.one_of(st.none(), st.builds(OrderBasis, texts, maybe))),
        stopped_by=draw(st.one_of(st.none(), st.builds(StoppedBy, words, maybe, maybe, words))),
        memory=draw(st.one_of(st.none(), st.builds(MemoryState, maybe, maybe, words, maybe, maybe, maybe))),
        ranks=draw(st.sampled_from([ranks, few, ()])),
        attempts=draw(tuples(st.builds(Attempt, st.integers(0, 9), texts, texts, spans))),
        teardown=draw(teardowns),
        hints=draw(tuples(texts)),
        warnings=draw(tuples(texts)),
    )


@settings(deadline=None)
@given(verdicts(), st.integers(0, 300), st.booleans())
def test_within_2048_bytes_and_25_lines_and_the_last_line_whole(verdict, width, saved):
    text = final_report(verdict, width=width, saved=saved)

    assert len((text + "\n").encode()) <= 2048
    assert text.count("\n") + 1 <= 25
    assert text.split("\n")[-1] == last_line(verdict)
    assert [line for line in text.split("\n") if line.startswith("rankguard:")] == [last_line(verdict)]
    assert all(line.isprintable() for line in text.split("\n"))
    assert_stable(last_line(verdict))
    if verdict.outcome == "succeeded":
        assert text.count("\n") <= 1


def assert_stable(line):
    assert len(line.encode()) < 200
    assert line.isascii()
    assert re.fullmatch(r"rankguard: exit \d+( [^ =]+){1,2}( (signal|rank|name|node|phase|run)=[^ =]+)+", line)


@settings(deadline=None)
@given(verdicts())
def test_error_block_is_one_block(verdict):
    text = error_block(verdict)

    assert len(text.encode()) <= 2048
    assert text.count("\n") + 1 <= 25
    assert all(line.isprintable() for line in text.split("\n"))


@given(st.lists(st.tuples(counts, words, st.one_of(st.none(), spans), st.one_of(st.none(), spans), spans), max_size=64))
def test_progress_line_is_one_short_line(waiting):
    line = progress_line(62, 0, 64, waiting)

    assert line.isprintable()
    assert len(line) < 1000
