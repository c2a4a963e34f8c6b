"""Who was first, on four machines: victims before the news of a loss, an agent's own decisions, clocks of two machines.

Each rank waits for its word at a gate of its own, a FIFO that the test opens; so the test knows what happened in which order.
"""

import json
import os
import signal

import pytest
from tests.marks import slowly
from tests.nodes.jobs import Job, same

WORLD = range(8)
AT_A_GATE = """
tell()
with open(f"{sys.argv[2]}-{RANK}", "rb", buffering=0) as gate:
    word = gate.read(1)
if word == b"p":
    raise ConnectionResetError("Connection reset by peer")
if word == b"v":
    tell(time.monotonic())
    raise ValueError("shard 7 is empty")
if word == b"q":
    os.kill(os.getppid(), signal.SIGQUIT)
signal.pause()
"""


class Gates:
    """A word for each rank."""

    def __init__(self, folder):
        self.prefix = str(folder / "gate")
        for rank in WORLD:
            os.mkfifo(f"{self.prefix}-{rank}")
        self._open = {rank: os.open(f"{self.prefix}-{rank}", os.O_RDWR) for rank in WORLD}

    def say(self, rank, word):
        os.write(self._open[rank], word)

    def close(self):
        for fd in self._open.values():
            os.close(fd)


@pytest.fixture
def gates(tmp_path):
    made = Gates(tmp_path)
    yield made
    made.close()


@pytest.fixture
def job(hosts, tmp_path, gates):
    with Job(hosts, tmp_path, AT_A_GATE) as made:
        made.args = (gates.prefix,)
        yield made


def test_a_lone_victim_is_not_the_reason_of_what_its_agent_does(job, gates):
    """The stop is held, on its node as well; the ranks that are then told to end are no failures."""
    job.start().up()
    gates.say(4, b"p")
    job.gone(WORLD)

    verdict = same(job.ended())
    assert (verdict["culprit"]["rank"], verdict["culprit"]["node"]) == (4, "host-c")
    assert verdict["culprit"]["cause"]["confidence"] == "likely"
    assert {row["relation"] for row in verdict["ranks"] if row["rank"] != 4} == {"stopped"}


def test_two_exceptions_on_two_machines(job, gates):
    """All of these machines have one clock in truth, so what really came first is known. It is named, or clocks cannot tell."""
    job.start().up()
    gates.say(7, b"v")
    gates.say(1, b"v")
    job.gone(WORLD)

    verdict = same(job.ended())
    raised = {told.rank: float(told.words[0]) for told in job.tellings(1)}
    named = verdict["culprit"]["rank"]
    assert named in (1, 7)
    for rank, at in raised.items():
        assert rank == named or rank in verdict["either"] or at >= raised.get(named, 0.0)


@pytest.mark.parametrize("silently", [True, *slowly(False)])
def test_victims_of_a_node_that_is_cut_off(hosts, job, gates, silently):
    """They complain long before silence is a loss; the verdict waits for that, the stop does not."""
    job.start("--node-timeout", "2", "--orphan-timeout", "2.5").up()
    hosts[2].cut(silently=silently)
    gates.say(0, b"p")
    gates.say(3, b"p")
    job.gone(WORLD)
    nodes = job.ended()

    verdict = same([nodes[0], nodes[1], nodes[3]])
    journal = (job.run_dir(0) / "events.jsonl").read_text().splitlines()
    culprit = verdict["culprit"]
    assert (culprit["rank"], culprit["node"], culprit["cause"]["kind"]) == (None, "host-c", "node-lost")
    relations = [row["relation"] for row in verdict["ranks"]]
    assert [relations[rank] for rank in (1, 2, 4, 5, 6, 7)] == ["stopped"] * 2 + ["collateral"] * 2 + ["stopped"] * 2
    assert [row["ending"]["kind"] for row in verdict["ranks"][4:6]] == ["lost", "lost"]
    stop, lost = (next(n for n, line in enumerate(journal) if word in line) for word in ('"SignalAll"', '"NodeLost"'))
    assert stop < lost
    # The stop waits a second for the second of them, which may need longer to say what it has.
    news = [json.loads(line) for line in journal[:stop]]
    complained = {line["rank"] for line in news if line.get("fact") in ("FailureReported", "Exited")}
    assert complained in ({0}, {3}, {0, 3})
    for rank in (0, 3):
        assert relations[rank] == "collateral" or (relations[rank] == "stopped" and rank not in complained)


@pytest.mark.slow
def test_a_complaint_that_its_agent_acts_on_first(job, gates):
    """Both have the same clock of 5 s; the agent's is over first."""
    job.start().up()
    gates.say(4, b"q")
    job.gone(WORLD)

    verdict = same(job.ended())
    assert (verdict["culprit"]["rank"], verdict["culprit"]["cause"]["kind"]) == (4, "reported-failure")
    assert {row["relation"] for row in verdict["ranks"] if row["rank"] != 4} == {"stopped"}


@pytest.mark.slow
def test_one_that_is_killed_while_another_node_is_silent(hosts, job):
    job.start("--node-timeout", "4", "--orphan-timeout", "6").up()
    hosts[3].cut()
    job.kill_rank(2, signal.SIGKILL)
    job.gone(set(WORLD) - {6, 7})
    job.gone({6, 7}, 15)
    nodes = job.ended()

    verdict = same(nodes[:3])
    assert (verdict["culprit"]["rank"], verdict["culprit"]["node"]) == (2, "host-b")
