"""A process deep in a watched engine is killed for memory, in a real memory group: proven, and told apart from `kill -9`."""

from collections.abc import Iterator

import pytest
from tests.linux._evidence_helpers import MIB, limited_group
from tests.run.test_memory import HOLD, inside
from tests.watch.engines import HEAD, Engines

LIMIT = 150
ENGINE = (
    HEAD
    + HOLD
    + """
role = sys.argv[2:3]
if role == ["worker"]:
    hold(30)
    print("worker", sys.argv[3], "is up", flush=True)
    if sys.argv[3] == "1":
        sys.stdin.read(1)
        while True:
            hold(1)
            time.sleep(0.05)  # it takes longer than the supervisor looks apart while it is calm
    time.sleep(3600)
if role == ["core"]:
    workers = [
        subprocess.Popen([sys.executable, __file__, "-", "worker", str(n)], stdin=subprocess.PIPE) for n in range(2)
    ]
    told(workers=[each.pid for each in workers])
    open(sys.argv[1]).close()
    workers[1].stdin.write(b"x")
    workers[1].stdin.flush()
    time.sleep(3600)
subprocess.Popen([sys.executable, __file__, sys.argv[1], "core"]).wait()
"""
)


@pytest.fixture
def group() -> Iterator[str]:
    """A memory group with a limit."""
    with limited_group(LIMIT) as path:
        yield path


@pytest.mark.cgroup
def test_an_oom_kill_at_depth(engines: Engines, group: str) -> None:
    watched = engines.start(
        ENGINE, "--rank-pattern", r" worker (?P<index>\d+)$", "--settle", "0.1", preexec_fn=inside(group)
    )
    pids = watched.pids()["workers"]
    watched.joined(pids)
    watched.fifo.write_text("")  # go
    ended = watched.end()

    culprit, cause = ended.verdict["culprit"], ended.cause
    assert (ended.status, cause["kind"], culprit["pid"]) == (137, "oom-kill", pids[1]), ended.stderr
    assert cause["confidence"] == (
        "proven" if any(e["source"] == "kernel log" for e in cause["evidence"]) else "likely"
    )
    assert culprit["role"] == "rank"
    rows = {row["pid"]: row["memory"] for row in ended.verdict["ranks"]}
    assert rows[pids[0]]["rss_bytes"] > 30 * MIB
    assert rows[pids[1]]["held_bytes"] > 60 * MIB
    assert "was killed by the kernel's OOM killer" in ended.stderr
    assert "rankguard: warning: the memory limit is reached in" in ended.stderr


@pytest.mark.cgroup
def test_a_process_that_nobody_has_seen_is_killed_for_memory(engines: Engines, group: str) -> None:
    """It lives for less than the time between two looks."""
    watched = engines.start(
        HEAD
        + """
told()
for _ in range(2):  # the second look at the tree comes after this
    time.sleep(0.2)
done = subprocess.run(["dd", "if=/dev/zero", "of=/dev/null", "bs=400M", "count=1"], stderr=subprocess.DEVNULL)
print("dd ended with", done.returncode, flush=True)
time.sleep(0.5)
""",
        preexec_fn=inside(group),
    )
    watched.pids()
    ended = watched.end()

    assert (ended.status, "dd ended with -9" in ended.stdout) == (0, True), ended.stderr
    assert len(ended.verdict["reported"]) == 1, ended.facts
    (reported,) = ended.verdict["reported"]
    assert (reported["cause"]["kind"], reported["name"].split()[0]) in (
        ("oom-kill", "dd"),
        ("oom-kill", "python"),  # seen on a slow machine, between its fork and its exec
    )
    assert "was killed by the kernel's OOM killer; it is left to its engine" in ended.stderr
