"""What the supervisor tells of the ranks for the view: who holds the others up, in few words however many they are."""

import os
import time

from rankguard.core.job import Job
from rankguard.facts import Exited, StatusTold
from rankguard.jobspec import JobSpec
from rankguard.linux.memory import MemoryDomain
from rankguard.model import Ending
from rankguard.supervisor.glimpses import Glimpses
from rankguard.wire import Message

NOW = 100.0


def job(nprocs: int) -> Job:
    """All ranks execute since second 1, and readiness is expected."""
    spec = JobSpec(run_id="x", command=("x",), argv=("x",), nprocs=nprocs, env={}, cwd="/", expect_ready=True)
    made = Job(spec)
    made.started_at = 0.0
    for rank in made.ranks:
        rank.pid, rank.spawned_at = os.getpid(), 1.0
    made.spawned = nprocs
    return made


def glimpse(of: Job, rows: int, heard: dict[int, float] | None = None) -> Message:
    """Who is not in `heard` has just been heard."""
    told = Glimpses(of, MemoryDomain(), lambda rank: (heard or {}).get(rank, NOW), lambda _message: None)
    answer = told.ask({"rows": rows}, NOW)
    assert answer is not None
    return answer


def test_those_that_are_silent_or_behind_are_told() -> None:
    of = job(64)
    for rank in of.ranks:
        rank.status = StatusTold(NOW, rank.rank, "loading", 8, 10, "shards")
    of.ranks[40].status = StatusTold(NOW, 40, "loading", 1, 10, "shards")
    of.ranks[7].ready_at = 50.0

    answer = glimpse(of, 3, heard={9: 20.0, 50: 60.0, 7: 1.0})

    assert [row[0] for row in answer["rows"]] == [9, 40, 50]
    assert [round(row[6]) for row in answer["rows"]] == [80, 0, 40]


def test_a_phase_is_counted_once() -> None:
    of = job(6)
    of.ranks[0].pid = None
    of.ranks[1].ready_at = 5.0
    of.ranks[2].exited = Exited(9.0, 2, Ending(kind="exit", code=0))

    answer = glimpse(of, 16)

    assert answer["counts"] == {"starting": 4, "ready": 1, "ended": 1}
    assert [row[1] for row in answer["rows"]] == ["starting", "ready", "ended", *["starting"] * 3]
    assert answer["rows"][0][7] is None
    assert answer["rows"][1][8] == 5.0


def test_memory_is_that_of_the_process_now() -> None:
    with open("/proc/self/status") as file:
        resident = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))

    answer = glimpse(job(1), 16)

    assert abs(answer["rows"][0][7] - resident) < resident / 4
    used, limit = answer["memory"]
    assert 0 < used < limit


def test_a_status_is_told_once_to_who_waits_for_one() -> None:
    said: list[Message] = []
    told = Glimpses(job(2), MemoryDomain(), lambda _rank: None, said.append)

    told.spoken()
    assert told.ask({"do": "glimpse", "when": "spoken"}, NOW) is None
    told.spoken()
    told.spoken()

    assert said == [{"is": "spoken"}]


def test_of_512_ranks_one_costs_little() -> None:
    """Measured 0.9 ms on a 2020s server core. Time on a processor: what others do meanwhile does not count."""
    of = job(512)
    for rank in of.ranks:
        rank.status = StatusTold(NOW, rank.rank, "loading", 3, 10, "shards")
    told = Glimpses(of, MemoryDomain(), lambda _rank: NOW, lambda _message: None)

    def once() -> float:
        began = time.thread_time()
        told.ask({"rows": 8}, NOW)
        return time.thread_time() - began

    assert min(once() for _ in range(20)) < 0.005
