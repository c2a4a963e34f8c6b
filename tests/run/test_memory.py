"""The memory story of real jobs in real memory groups: a warning, an OOM kill whose victim is not the one that grew, the
memory of all ranks just before it; and silence where there is nothing to tell.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.linux._evidence_helpers import MIB, limited_group
from tests.others import AS_STRANGER, why_no_stranger
from tests.run.command import Ended, Ranks
from tests.run.test_verdicts import checked

from rankguard.linux.hierarchies import own_groups

LIMIT = 220
V2 = "memory" not in own_groups()  # its controller is cgroup2's
HOLD = """
import mmap
kept = []
def hold(mib):
    kept.append(mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    for offset in range(0, mib << 20, 4096): kept[-1][offset] = 1
def prefer(me):
    with open('/proc/self/oom_score_adj', 'w') as file: file.write('900' if me else '0')
"""
VICTIM_AND_GROWER = (
    HOLD
    + """
go = sys.argv[1]
prefer(RANK == 1)
if RANK == 1:
    hold(50)
    os.close(os.open(go, os.O_WRONLY))
if RANK == 2:
    os.close(os.open(go, os.O_RDONLY))
    while True:
        hold(1)
        time.sleep(0.02)  # it takes longer than the supervisor looks apart while it is calm
signal.pause()
"""
)


@pytest.fixture
def group() -> Iterator[str]:
    """A memory group with a limit; what the job leaves in it goes with it."""
    with limited_group(LIMIT) as path:
        yield path


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A folder that another user may write; pytest's own are for their user alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


def inside(path: str):
    """For a process that is about to be executed: into the group."""

    def enter() -> None:
        with open(f"{path}/cgroup.procs", "w") as procs:
            procs.write("0")

    return enter


def go(ranks: Ranks) -> str:
    path = ranks.folder / "go"
    os.mkfifo(path)
    path.chmod(0o666)
    return str(path)


def story(ended: Ended) -> list[str]:
    return [fact["fact"] for fact in ended.facts if fact["fact"] in ("MemoryShort", "OomSeen", "Exited")]


def the_grower_is_named(ended: Ended) -> None:
    """Whatever the machine lets us see."""
    assert (ended.folder / "verdict.json").exists(), (ended.status, ended.stderr)
    told = checked(ended)
    culprit = told["culprit"]
    assert (culprit["rank"], culprit["cause"]["kind"], ended.status) == (1, "oom-kill", 137), ended.stderr
    (responsible,) = culprit["cause"]["responsible"]
    assert (responsible["rank"], responsible["confidence"]) == (2, "likely")
    assert responsible["because"].startswith("was growing by ")
    victim, grower = told["ranks"][1]["memory"], told["ranks"][2]["memory"]
    # Its memory is given back by now: this is the last sample's, or the kernel log's.
    assert 49 * MIB < victim["held_bytes"] < 80 * MIB
    assert grower["held_bytes"] > 70 * MIB
    assert grower["growth_bytes_s"] > 0
    state = told["memory"]
    assert state["limit_bytes"] == LIMIT * MIB
    assert state["used_bytes"] > 0.8 * LIMIT * MIB
    assert state["ranks_bytes"] <= state["used_bytes"] + 16 * MIB
    assert told["hints"][0].startswith("see what rank 2 allocates: it alone held ")
    assert "and was growing by " in told["hints"][0]
    rows = ended.stderr[ended.stderr.index("\n  memory ") :].splitlines()
    assert any(line.split()[:4] == ["rank", "0", "1", "2"] for line in rows)
    cells = next(line.split() for line in rows if line.split()[:1] == ["MiB"])
    assert cells[2].endswith("†")
    assert cells[3].endswith("*")
    assert cells[4].endswith("/s")
    assert ended.stderr.count("rankguard: warning: the memory limit is reached in ") in (1, 2)
    assert re.search(r"ranks? (1 \(\+[^)]*\), )?2 \(\+", ended.stderr)


def test_victim_and_grower_in_groups_of_their_own(ranks: Ranks, group: str) -> None:
    ended = ranks.run(3, VICTIM_AND_GROWER, args=(go(ranks),), preexec_fn=inside(group))

    the_grower_is_named(ended)
    assert ended.cause["confidence"] == "proven"
    order = story(ended)
    assert order.index("MemoryShort") < order.index("Exited")
    if "OomSeen" in order:  # by an event of the group, where it may be asked for
        # cgroup2 holds an event back for up to 10 ms after the one before (CGROUP_FILE_NOTIFY_MIN_INTV, kernel/cgroup):
        # one that comes after the end is no evidence of what came before it.
        assert V2 or order.index("OomSeen") < order.index("Exited")
        ended_at = next(fact["at"] for fact in ended.facts if fact["fact"] == "Exited")
        before = [fact["at"] for fact in ended.facts if fact["fact"] == "OomSeen" and fact["at"] <= ended_at]
        assert ("event" in {each["source"] for each in ended.cause["evidence"]}) is bool(before)
        seen = max(before, default=ended_at)
        assert ended.verdict["culprit"]["detected_in_ms"] >= (ended_at - seen) * 1e3 - 0.01
    assert [f["what"] for f in ended.verdict["timeline"] if f["what"].startswith("the memory limit is reached in")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_victim_and_grower_in_the_shared_group_of_somebody_who_may_make_none(everybodys: Path, group: str) -> None:
    ranks = Ranks(everybodys)
    fifo = go(ranks)
    if why_no_stranger() is not None:
        pytest.skip(str(why_no_stranger()))

    ended = ranks.run(
        3, VICTIM_AND_GROWER, args=(fifo,), before=AS_STRANGER, preexec_fn=inside(group), env=os.environ | {"HOME": "/"}
    )

    the_grower_is_named(ended)
    assert ended.cause["confidence"] in ("likely", "proven")  # proven where the kernel log is for everybody
    assert "oom_kill of" in ended.stderr


QUIET = {
    "stands still at 96 %": f"hold(int({LIMIT} * 0.96) - 45)",
    "page cache alone": f"""
with open(sys.argv[1], 'wb') as file:
    for _ in range({LIMIT} + 40): file.write(bytes(1 << 20))
os.unlink(sys.argv[1])""",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", QUIET)
def test_no_warning_without_need(ranks: Ranks, group: str, what: str) -> None:
    """Four seconds of it: the samples at its end, some a second apart, would be the ones to complain."""
    text = HOLD + QUIET[what] + "\nprint(time.monotonic(), flush=True)\ntime.sleep(4)\nos._exit(0)"
    folder = os.environ.get("RANKGUARD_TEST_DISK", "/var/tmp")

    ended = ranks.run(1, text, args=(f"{folder}/rankguard-cache-{os.getpid()}",), preexec_fn=inside(group))

    assert ended.status == 0
    there = float(ended.stdout)
    shorts = [fact for fact in ended.facts if fact["fact"] == "MemoryShort"]
    assert [fact["statement"] for fact in shorts if fact["at"] > there + 1.5] == []  # on its way there it grows
    if what == "page cache alone":
        assert shorts == []
        assert "warning" not in ended.stderr


def test_without_samples_the_kernels_own_word_is_left(ranks: Ranks, group: str) -> None:
    ended = ranks.run(3, VICTIM_AND_GROWER, "--sample", "0", args=(go(ranks),), preexec_fn=inside(group))

    told = checked(ended)
    assert (told["culprit"]["rank"], told["culprit"]["cause"]["kind"]) == (1, "oom-kill")
    assert "MemoryShort" not in story(ended)
    assert "warning" not in ended.stderr
    assert not (ended.folder / "samples.json").exists()
    assert [each["rank"] for each in told["culprit"]["cause"]["responsible"]] in ([2], [])  # larger, if it was by then


def test_with_few_descriptors_files_are_opened_each_time(ranks: Ranks, group: str) -> None:
    """8 ranks, 79 descriptors: enough for the ranks, none to keep, and none for the kernel's word on an OOM. So it has to
    grow for as long as a calm job's looks are apart (`--sample`, 1 s), several times.
    """
    import resource

    from rankguard.launchers.limits import fds_for

    least = fds_for(8)[0] + 1

    def enter() -> None:
        inside(group)()
        resource.setrlimit(resource.RLIMIT_NOFILE, (least, least))

    text = VICTIM_AND_GROWER.replace("go = sys.argv[1]", "go = sys.argv[1]; RANK > 2 and signal.pause()")
    text = text.replace("time.sleep(0.02)", "time.sleep(0.025)")
    ended = ranks.run(8, text, args=(go(ranks),), preexec_fn=enter)

    told = checked(ended)
    assert (told["culprit"]["rank"], told["culprit"]["cause"]["kind"]) == (1, "oom-kill")
    assert told["ranks"][2]["memory"]["growth_bytes_s"] > 0
    assert [each["rank"] for each in told["culprit"]["cause"]["responsible"]] == [2]
