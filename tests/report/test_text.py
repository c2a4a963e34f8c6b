"""The text of verdicts, whole: what is compared is all that the person who is paged sees.

`UPDATE_GOLDEN=1 pytest tests/report` writes the files anew; read the difference before you commit it.
"""

import os
import re
from pathlib import Path

import pytest
from tests.report import samples

from rankguard.errors import RankFailed
from rankguard.model import Attempt, Cause, Confidence, Ending, Evidence, Family, Memory, MemoryState, RankOutcome
from rankguard.report.attempts import earlier
from rankguard.report.text import all_ready_line, error_block, final_report, last_line, progress_line

GOLDEN = Path(__file__).parent / "golden"
FAILED = sorted(name for name, make in samples.ALL.items() if make().outcome == "failed")


def golden(name, actual):
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(actual + "\n")

    expected = path.read_text()

    assert expected == actual + "\n"


@pytest.mark.parametrize("name", sorted(samples.ALL))
def test_final_report(name):
    golden(name, final_report(samples.ALL[name]()))


@pytest.mark.parametrize("name", FAILED)
def test_error_block(name):
    golden(f"{name}.block", error_block(samples.ALL[name]()))


def test_every_golden_file_belongs_to_a_sample():
    expected = {f"{name}.txt" for name in samples.ALL} | {f"{name}.block.txt" for name in FAILED}

    assert expected == {path.name for path in GOLDEN.iterdir()}


def test_error_block_is_what_an_exception_says():
    assert str(RankFailed(samples.oom())) == error_block(samples.oom())


def test_narrow_terminals_wrap_under_the_label():
    golden_lines = final_report(samples.oom(), width=60).splitlines()
    then = next(n for n, line in enumerate(golden_lines) if line.startswith("  then"))

    expected = [
        "  then    stopped ranks 0-4, 6, 7 because rank 5 failed; all",
        "          gone after 0.03 s; nothing left behind",
    ]

    assert expected == golden_lines[then : then + 2]


def test_colour_adds_escapes_only_and_leaves_the_last_line_alone():
    plain, coloured = final_report(samples.oom()), final_report(samples.oom(), color=True)

    assert plain == re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert plain != coloured
    assert plain.splitlines()[-1] == coloured.splitlines()[-1]


def test_colour_is_never_painted_on_a_ranks_own_words():
    plain, coloured = (
        final_report(samples.hostile()).splitlines(),
        final_report(samples.hostile(), color=True).splitlines(),
    )

    assert [line for line in plain if "|" in line] == [line for line in coloured if "|" in line]


def test_more_names_nothing_that_does_not_exist():
    assert "more" not in final_report(samples.oom(), saved=False)


def test_the_first_screen_says_who_why_and_what_to_do():
    """The first lines of a failure, before any detail."""
    expected = [
        "error: rank 5 of 8 was killed by the kernel's OOM killer while starting  [oom-kill, proven]",
        "try:   raise the memory limit from 100 to about 130 GiB, or cap each rank's host memory at about 11 GiB",
        "",
        "  retry   no, the same limit would be reached again",
        "  when    2026-11-22 08:14:03 UTC, 14.2 s after launch; 0 of 8 ranks were ready",
        '  where   host-a, pid 40213; ended by SIGKILL; last status "allocating host cache"',
    ]

    assert expected == final_report(samples.oom()).splitlines()[:6]


def test_a_traceback_is_not_said_twice():
    text = final_report(samples.exception())

    assert text.count("with open(path") == 1
    assert "| INFO loading shard 3 of 8" in text


def test_a_log_gives_way_before_the_cells_do():
    whole = samples.killed()
    assert whole.culprit
    long = whole.replace(culprit=whole.culprit.replace(log_tail=tuple(f"line {n} " + "x" * 140 for n in range(20))))

    actual = final_report(long).splitlines()

    assert [line for line in actual if line.startswith("    | ")] == ["    | line 19 " + "x" * 140]
    assert any(line.startswith("  more ") for line in actual)


def test_a_long_message_leaves_the_frames():
    advice = "\n".join(["torch.AcceleratorError: CUDA error: out of memory", *(f"advice {n}" for n in range(12))])
    whole = samples.exception()
    assert whole.culprit
    trace = samples.TRACEBACK.rsplit("\n", 2)[0] + "\n" + advice + "\n"

    actual = final_report(whole.replace(culprit=whole.culprit.replace(traceback=trace, log_tail=()))).splitlines()

    expected = [
        '    |   File "/app/loader.py", line 140, in load',
        "    |     return torch.load(path)",
        '    |   File "/app/loader.py", line 17, in read_shard',
        '    |     with open(path, "rb") as file:',
        "    | torch.AcceleratorError: CUDA error: out of memory",
        "    | advice 0",
    ]
    assert expected == [line for line in actual if line.startswith("    | ")][-6:]


def test_memory_of_a_rank_that_ran_into_its_own_limit():
    limit = Cause(
        "memory-limit", Family.MEMORY, Confidence.PROVEN, "MemoryError", evidence=(Evidence("rank", "MemoryError"),)
    )
    rank = samples.culprit(0, Ending("exit", code=1), limit, memory=Memory(peak_bytes=3 << 30))

    actual = final_report(samples.verdict("failed", 1, "rank 0 of 1 ran out of memory", culprit=rank, world_size=1))

    assert "  memory  rank 0 had 3.0 GiB at most" in actual.splitlines()


def test_memory_that_was_given_back_by_the_look_at_it():
    limit = samples.oom().memory
    assert limit is not None
    after = limit.replace(used_bytes=85 << 30, ranks_bytes=84 << 30)
    before = limit.replace(age_s=0.2)

    assert "), just after: ranks 84.0" in final_report(samples.oom().replace(memory=after))
    assert "), 0.20 s before: ranks 98.9" in final_report(samples.oom().replace(memory=before))
    assert "just after" not in final_report(samples.oom())
    # Not of one instant: some died in between.
    part = limit.replace(ranks_bytes=101 << 30)
    assert "job/memory.max): cache 0.4" in final_report(samples.oom().replace(memory=part))


def test_memory_without_a_limit():
    whole = samples.oom().replace(memory=MemoryState(used_bytes=3 << 30))

    assert "  memory  3.0 GiB" in final_report(whole).splitlines()


def test_ranks_that_are_not_ours_to_end_are_said_to_live():
    ranks = (
        samples.outcome(0, "culprit", samples.KILL),
        *(RankOutcome.replace(samples.outcome(n), ending=Ending("alive")) for n in (1, 2, 3)),
    )
    actual = final_report(samples.killed().replace(ranks=ranks, teardown=samples.Teardown()))

    assert "  then    ranks 1-3 still alive" in actual.splitlines()


# ── The last line ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("oom", "rankguard: exit 137 oom-kill proven rank=5 node=host-a phase=starting run=7f3a"),
        ("killed", "rankguard: exit 137 killed likely rank=2 node=host-a phase=ready run=7f3a"),
        ("watched", "rankguard: exit 1 unknown unknown name=sglang::scheduler_TP5 node=host-a phase=running run=7f3a"),
        ("interrupted", "rankguard: exit 143 interrupted signal=SIGTERM run=7f3a"),
        ("succeeded", "rankguard: exit 0 succeeded run=7f3a"),
        ("supervisor_lost", "rankguard: exit 125 supervisor-lost proven node=host-a phase=running run=7f3a"),
        ("nobody_known", "rankguard: exit 125 failed unknown run=7f3a"),
        ("node_lost", "rankguard: exit 1 node-lost likely node=host-c phase=running run=7f3a"),
        ("nodes_missing", "rankguard: exit 1 node-lost proven node=? phase=starting run=7f3a"),
        ("running", "rankguard: running run=7f3a"),
        ("hostile", "rankguard: exit 1 exception proven rank=0 node=host__31m_a phase=starting run=run_1"),
    ],
)
def test_last_line(name, expected):
    assert expected == last_line(samples.ALL[name]())


# ── While one waits ──────────────────────────────────────────────────────────────────────────────────────────────


def test_progress_line():
    actual = progress_line(62.4, 6, 8, [(3, "loading", 41, 100, 2.0), (5, "allocating host cache", None, None, 42.3)])

    expected = (
        "62 s: 6 of 8 ready; waiting for rank 3 (loading 41 %), rank 5 (silent for 42 s, last: allocating host cache)"
    )

    assert expected == actual


def test_progress_line_names_six_and_counts_the_rest():
    actual = progress_line(3725, 1, 64, [(n, None, None, None, 0.0) for n in range(1, 64)])

    expected = "1 h 2 min: 1 of 64 ready; waiting for rank 1, rank 2, rank 3, rank 4, rank 5, rank 6, and 57 more"

    assert expected == actual


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        ((0, None, None, None, 31.0), "rank 0 (silent for 31 s)"),
        ((0, None, 3, None, 1.0), "rank 0 (3)"),
        ((0, "shards", 2.5, None, 1.0), "rank 0 (shards 2.5)"),
        ((0, "shards", 1, 0, 1.0), "rank 0 (shards 1)"),
        ((0, "a\x1b[2Jb\nrankguard: exit 0", None, None, 1.0), r"rank 0 (a\x1b[2Jb\nrankguard: exit 0)"),
    ],
)
def test_progress_line_of_one_rank(waiting, expected):
    assert f"10 s: 0 of 1 ready; waiting for {expected}" == progress_line(10, 0, 1, [waiting])


def test_progress_line_when_nobody_is_waited_for():
    assert progress_line(10, 8, 8, []) == "10 s: 8 of 8 ready"


def test_all_ready_line():
    assert all_ready_line(8, 47.12, 6, 4.1) == "all 8 ranks ready in 47.1 s (rank 6 last, +4.1 s)"
    assert all_ready_line(8, 47.12, 6, None) == "all 8 ranks ready in 47.1 s (rank 6 last)"
    assert all_ready_line(8, 0.456) == "all 8 ranks ready in 0.46 s"
    assert all_ready_line(1, 47.12, 0, 0.0) == "the only rank is ready in 47.1 s"


def test_an_attempt_failed_when_it_failed_and_not_when_the_last_rank_had_ended():
    attempt = Attempt(
        0,
        "exception",
        None,
        31.2,
        rank=1,
        started_at="2026-11-22T08:14:03.000000Z",
        failed_at="2026-11-22T08:14:04.250000Z",
    )
    told = dict(earlier(samples.oom().replace(attempts=(attempt, attempt.replace(attempt=1, failed_at=None)))))

    assert (
        told["before"]
        == "attempt 1 failed after 1.2 s (exception, rank 1); attempt 2 failed after 31.2 s (exception, rank 1)"
    )


def test_a_folder_with_a_blank_is_one_word_to_a_shell():
    told = final_report(samples.oom(), saved="/data/my runs/7f3a", home="/data")

    assert "rankguard report '/data/my runs/7f3a' · rankguard explain '/data/my runs/7f3a'" in " ".join(told.split())
