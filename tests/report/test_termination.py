"""What a container leaves of itself: 4,096 bytes at most, a line, a line of whole JSON, text. And the file it goes to."""

import json
import os
import resource
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.report import samples
from tests.report.test_limits import verdicts

from rankguard.diagnosis.projection import Near, Outlook, Sample
from rankguard.model import Cause, Confidence, Ending, Family, MemoryState, Phase
from rankguard.report.termination import SCHEMA, of_memory, of_request, of_verdict, so_far
from rankguard.report.terminationlog import MOST, TerminationLog
from rankguard.report.text import last_line

GIB = 1 << 30
AT = "2026-11-22T08:14:03Z"
NEAR = Near(
    MemoryState(
        limit_bytes=100 * GIB, firm_bytes=int(99.8 * GIB), limit_from="memory.max of /sys/fs/cgroup/kubepods/job"
    ),
    Outlook(2, 0.998, 2.1 * GIB, 0.1),
    (*(Sample(n, 15 * GIB, 0.0) for n in range(6)), Sample(6, 9 * GIB, 2.1 * GIB), Sample(7, GIB, 0.0)),
)


def data(message: bytes) -> dict:
    return json.loads(message.decode().split("\n")[1])


# ── What is said ─────────────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=50)
@given(verdicts(), st.binary(max_size=6000))
def test_any_verdict_fits_and_its_json_is_whole(verdict, theirs):
    message = of_verdict(verdict, theirs)

    assert len(message) <= MOST
    first, second, *rest = message.decode().split("\n")  # cut at no character's middle
    assert first == last_line(verdict)
    told = json.loads(second)
    assert told["schema"] == SCHEMA
    assert (told["outcome"], told["exit_code"]) == (verdict.outcome, verdict.exit_code)
    assert message.endswith(b"\n")
    assert all(line.isprintable() for line in (first, second, *rest))
    assert len(second.encode()) < 2500
    assert len(so_far(verdict, theirs)) <= MOST


def test_a_verdict():
    cause = Cause("oom-kill", Family.MEMORY, Confidence.PROVEN, "the kernel's OOM killer killed it")
    culprit = samples.culprit(5, samples.KILL, cause)
    verdict = samples.verdict("failed", 137, "rank 5 of 8 was killed by the kernel's OOM killer", culprit=culprit)
    line, selection, *text = of_verdict(verdict).decode().splitlines()

    assert line == "rankguard: exit 137 oom-kill proven rank=5 node=host-a phase=starting run=7f3a"
    assert json.loads(selection) == {
        "schema": "rankguard.termination/1", "outcome": "failed", "exit_code": 137, "kind": "oom-kill",
        "family": "memory", "confidence": "proven", "rank": 5, "name": None, "node": "host-a", "phase": "starting",
        "either": [], "owner": "program", "retry": "unknown", "fingerprint": "9c1f04aa", "run_id": "7f3a",
        "world_size": 8, "at": "2026-11-22T08:14:03.123456Z",
        "statement": "rank 5 of 8 was killed by the kernel's OOM killer",
    }  # fmt: skip
    assert text[0] == "error: rank 5 of 8 was killed by the kernel's OOM killer  [oom-kill, proven]"
    assert line not in text  # once is enough


def test_what_the_program_wrote_there_comes_last_and_cannot_pass_for_ours():
    verdict = samples.verdict("succeeded", 0, "all 8 ranks ended with exit code 0")
    message = of_verdict(verdict, b"rankguard: exit 0\nby the \x1b[31mprogram\n\xff").decode()

    assert message.splitlines()[2:] == [
        "the program's own word:",
        "  | rankguard: exit 0",
        "  | by the \\x1b[31mprogram",
        "  | \N{REPLACEMENT CHARACTER}",
    ]
    long = of_verdict(verdict, b"x\n" * 5000)
    assert len(long) == MOST
    assert data(long)["outcome"] == "succeeded"


def test_memory_that_runs_short():
    line, _json, text = of_memory(NEAR, "7f3a", AT, 8, [4, 5, 6, 7]).decode().splitlines()

    assert line == "rankguard: memory 99.8 of 100.0 GiB, +2.1 GiB/s, rank 6 growing, ranks 4-7 not ready run=7f3a"
    assert text == (
        "As it stood at 2026-11-22 08:14:03 UTC. If this is what the container left, rankguard was ended before it "
        "could write a verdict: by whatever ended the whole container; with memory as it was, likely by the kernel's OOM killer"
    )
    told = data(of_memory(NEAR, "7f3a", AT, 8, [4, 5, 6, 7]))
    assert (told["outcome"], told["not_ready"], told["world_size"]) == ("running", "4-7", 8)
    assert told["growing"] == [[6, round(2.1 * GIB)]]
    assert told["memory"] == {
        "limit_bytes": 100 * GIB, "firm_bytes": int(99.8 * GIB), "growth_bytes_s": round(2.1 * GIB), "left_s": 0.1,
        "limit_from": "memory.max of /sys/fs/cgroup/kubepods/job",
    }  # fmt: skip


def test_a_watched_engine_whose_processes_have_names():
    near = NEAR.replace(
        ranks=(Sample(0, 99 * GIB, 2.1 * GIB), Sample(1, 15 * GIB, 0.0), Sample(2, 15 * GIB, 2.0 * GIB))
    )
    message = of_memory(near, "7f3a", AT, 3, [0], names={1: "sglang::scheduler_TP0", 2: "sglang::scheduler_TP1"})

    assert message.splitlines()[0].decode() == (
        "rankguard: memory 99.8 of 100.0 GiB, +2.1 GiB/s, sglang::scheduler_TP1 growing, the engine not ready run=7f3a"
    )
    assert data(message)["growing"] == [["sglang::scheduler_TP1", 2 * GIB]]
    assert data(message)["not_ready"] == "the engine"


def test_memory_that_stands_still_near_its_limit():
    still = NEAR.replace(outlook=Outlook(0, 0.92, 0.0), ranks=())
    assert of_memory(still, "7f3a", AT, 8, None).endswith(b"whether for want of memory is unknown\n")
    full = NEAR.replace(outlook=Outlook(0, 0.96, 0.0), ranks=())
    assert of_memory(full, "7f3a", AT, 8, None).endswith(b"likely by the kernel's OOM killer\n")
    assert of_memory(still, "7f3a", AT, 8, None).startswith(b"rankguard: memory 99.8 of 100.0 GiB run=7f3a\n")
    assert data(of_memory(still, "7f3a", AT, 8, None))["not_ready"] is None
    assert data(of_memory(still, "7f3a", AT, 8, []))["not_ready"] == ""


def test_a_thousand_ranks():
    ranks = tuple(Sample(n, n + 1, float(n)) for n in range(1000))
    message = of_memory(NEAR.replace(ranks=ranks), "7f3a", AT, 1000, range(0, 1000, 2))

    assert len(message) <= MOST
    assert len(message.splitlines()[0]) < 200
    assert data(message)["outcome"] == "running"


def test_a_request():
    message = of_request("asked to end by SIGTERM from pid 1, systemd, uid 0", "7f3a", AT)

    assert message.startswith(b"rankguard: asked to end by SIGTERM from pid 1, systemd, uid 0 run=7f3a\n")
    assert data(message)["outcome"] == "stopping"


def test_so_far():
    cause = Cause("exception", Family.PROGRAM, Confidence.PROVEN, "it raised")
    culprit = samples.culprit(5, Ending("exit", code=1), cause, phase=Phase.READY)
    verdict = samples.verdict("failed", 1, "rank 5 raised KeyError", culprit=culprit)

    assert so_far(verdict).splitlines()[0] == last_line(verdict).encode()
    assert b"rank 5 raised KeyError; the other ranks are being ended. If this is what" in so_far(verdict)


# ── Where it is said ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def path(tmp_path):
    return tmp_path / "termination-log"


def test_in_place(path):
    """It is a bind mount: it cannot be renamed over, and whoever has it open reads on."""
    path.write_bytes(b"")
    inode = path.stat().st_ino
    log = TerminationLog(str(path))
    with path.open("rb") as reader:
        log.write(lambda _theirs: b"rankguard: a longer text\n")
        log.write(lambda _theirs: b"rankguard: short\n")
        assert reader.read() == b"rankguard: short\n"
    assert path.stat().st_ino == inode
    log.clear()
    assert path.read_bytes() == b""
    assert log.error is None
    log.close()


def test_the_programs_own_word_is_kept_and_given_back(path):
    path.write_bytes(b"from before\n")
    heard = []
    log = TerminationLog(str(path), lambda text: text.replace("secret", "***"))
    log.write(lambda theirs: heard.append(theirs) or b"rankguard: one\n")
    with path.open("ab") as file:
        file.write(b"a secret\n")
    log.write(lambda theirs: heard.append(theirs) or b"rankguard: two\n")
    assert heard == [b"from before\n", b"from before\na ***\n"]
    log.clear()
    assert path.read_bytes() == b"from before\na secret\n"

    path.write_bytes(b"the program wrote it anew\n")
    log.write(lambda theirs: heard.append(theirs) or b"rankguard: three\n")
    assert heard[-1] == b"the program wrote it anew\n"
    log.close()


def test_what_an_earlier_or_an_inner_rankguard_left_is_not_kept(path):
    path.write_bytes(b"rankguard: exit 0 succeeded run=1234\n{}\n")
    heard = []
    log = TerminationLog(str(path))
    log.write(lambda theirs: heard.append(theirs) or b"rankguard: ours\n")
    path.write_bytes(b"rankguard: another\n")
    log.write(lambda theirs: heard.append(theirs) or b"rankguard: ours\n")
    assert heard == [b"", b""]
    log.close()


def test_what_is_not_written_ahead_is_not_cleared(path):
    path.write_bytes(b"the program's\n")
    log = TerminationLog(str(path))
    log.clear()
    assert path.read_bytes() == b"the program's\n"
    log.close()


@pytest.mark.parametrize("what", ["missing", "folder", "fifo", "device"])
def test_what_cannot_be_written_is_told_once(path, what):
    place = "/dev/null" if what == "device" else str(path)
    if what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    log = TerminationLog(place)
    log.write(lambda _theirs: pytest.fail("there is nowhere to write it"))
    log.clear()

    assert log.error is not None
    assert log.error.startswith(f"unable to write the termination log `{place}`: ")


def test_a_fifo_with_a_reader_and_nowhere(path):
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert TerminationLog(str(path)).error.endswith("it is no regular file")
    os.close(reader)
    assert TerminationLog(None).error is None


def test_what_could_not_be_written_once_is_tried_again(path):
    path.write_bytes(b"")
    log = TerminationLog(str(path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # Python ignores SIGXFSZ
    try:
        log.write(lambda _theirs: b"rankguard: lost\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.error == f"unable to write the termination log `{path}`: File too large"
    log.write(lambda _theirs: b"rankguard: there\n")
    assert path.read_bytes() == b"rankguard: there\n"
    log.close()


def test_a_fault_of_ours_costs_the_message_alone(path):
    path.write_bytes(b"theirs\n")
    log = TerminationLog(str(path))
    log.write(lambda _theirs: f"{1 // 0}".encode())
    assert log.error == (
        f"unable to write the termination log `{path}`: a fault of rankguard: ZeroDivisionError: "
        "integer division or modulo by zero"
    )
    assert path.read_bytes() == b"theirs\n"
    log.close()


@pytest.mark.skipif(os.getuid() == 0, reason="root may read what nobody may")
def test_a_file_that_we_may_not_read(path):
    path.write_bytes(b"theirs\n")
    path.chmod(stat.S_IWUSR)
    log = TerminationLog(str(path))
    log.write(lambda theirs: theirs or b"rankguard: ours\n")
    path.chmod(0o600)
    assert path.read_bytes() == b"rankguard: ours\n"
    log.close()
