"""An engine that kills everybody because one of its processes has said that it failed; and those that only look like it."""

from tests.diagnosis.cases import by_code, by_signal, case, killed, suspect

from rankguard.diagnosis.culprit import choose
from rankguard.diagnosis.engine_words import complaint
from rankguard.diagnosis.verdict import verdict
from rankguard.facts import Looked
from rankguard.jobspec import WatchPlan
from rankguard.model import Process

START = 1000.0
LINE = "[2026-09-01 12:00:00 DP0 TP1] Scheduler hit an exception: Traceback (most recent call last):"
TAIL = (
    '  File "/s/scheduler.py", line 6362, in run_scheduler_process',
    "    scheduler = Scheduler(server_args, port_args)",
    "RuntimeError: no kernel image is available",
    "[2026-09-01 12:00:00] Received sigquit from a child process. It usually means the child failed.",
)
NAMES = (None, "sglang::scheduler_DP0_TP0", "sglang::scheduler_DP0_TP1", "sglang::detokenizer")


def engine(*ends, line=LINE, tail=TAIL, **more):
    """All killed by one, at the same time."""
    ends = ends or tuple(by_signal(n, 9, at=10.0, remarks=(line,) if line else (), log_tail=tail) for n in range(4))
    ranks = [suspect(end.rank, end, name=NAMES[end.rank]) for end in ends]
    return case(*ranks, spec_more={"watch": WatchPlan()}, **more)


def judged(found):
    return verdict(found.replace(judged=choose(found)), "")


def test_the_log_says_who_it_was():
    culprit = judged(engine()).culprit
    assert (culprit.name, culprit.cause.kind, culprit.cause.confidence) == (NAMES[2], "exception", "likely")
    assert culprit.cause.exception.message == "no kernel image is available"
    assert "its engine then killed all of its processes" in culprit.cause.statement


def test_it_may_end_by_itself_meanwhile():
    """After its SIGQUIT, with 0; that is no failure of its own by the rules, so it is no suspect."""
    found = engine()
    alone = found.ranks[2].replace(exited=by_code(2, 0, at=10.01), suspect=False, failed_at=None)
    culprit = judged(found.replace(ranks=(*found.ranks[:2], alone, found.ranks[3]))).culprit
    assert (culprit.name, culprit.cause.kind, culprit.ending.code) == (NAMES[2], "exception", 0)


def test_the_others_are_its_victims():
    found = judged(engine())
    assert sorted(row.relation for row in found.ranks) == ["collateral"] * 3 + ["culprit"]
    assert found.either == ()


def test_words_decide_the_kind():
    tail = (*TAIL[:2], "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", TAIL[3])
    assert judged(engine(tail=tail)).culprit.cause.kind == "cuda-oom"


def test_nobody_is_believed_who_speaks_of_a_peer():
    tail = (*TAIL[:2], "ConnectionResetError: [Errno 104] Connection reset by peer", TAIL[3])
    assert complaint(engine(tail=tail)) is None


def test_an_oom_kill_is_stronger():
    ends = [by_signal(n, 9, at=10.0, remarks=(LINE,), log_tail=TAIL) for n in range(4)]
    found = engine(*ends)
    victim = found.ranks[1].replace(ooms=(killed(1, 401),))
    assert complaint(found.replace(ranks=(found.ranks[0], victim, *found.ranks[2:]))) is None


def test_a_crash_is_stronger():
    ends = [by_signal(n, 11 if n == 1 else 9, at=10.0, remarks=(LINE,), log_tail=TAIL) for n in range(4)]
    assert complaint(engine(*ends)) is None


def test_one_that_its_engine_told_to_end_is_no_culprit():
    """It was ending when we first looked."""
    found = engine(by_signal(1, 15, at=10.0), by_code(2, 1, at=10.0))
    assert choose(found).rank == 2
    assert choose(found).either == ()
    assert {row.name: row.relation for row in judged(found).ranks}[NAMES[1]] == "finished"
    assert choose(engine(by_signal(1, 15, at=10.0))).rank == 1


def test_nobody_has_that_name():
    assert complaint(engine(line=LINE.replace("TP1", "TP7"))) is None
    assert complaint(engine(line="")) is None


def test_of_those_killed_at_once_the_one_that_started_them_is_named():
    tree = tuple(Process(pid=400 + n, parent=399 if n == 0 else 400, name=str(n)) for n in range(4))
    found = engine(line="", looked=Looked(START + 10, processes=tree))
    assert choose(found).rank == 0
    assert choose(found).either == (1, 2, 3)


def alive_at(found, **instants):
    ranks = tuple(rank.replace(alive_at=instants.get(f"rank_{rank.rank}")) for rank in found.ranks)
    return found.replace(ranks=ranks)


def test_what_was_alive_when_we_looked_was_killed_later():
    """The engine's watchdog sees the first one a second later, and kills the others."""
    later = START + 10.001
    found = engine(*(by_signal(n, 9, at=10.0 if n == 2 else 11.0) for n in range(4)))
    found = alive_at(found, rank_0=later, rank_1=later, rank_3=later)
    assert choose(found).rank == 2
    assert choose(found).either == ()


def test_what_was_dying_when_we_looked_may_have_been_first():
    later = START + 10.001
    found = engine(*(by_signal(n, 9, at=10.0 if n == 2 else 10.1) for n in range(4)))
    found = alive_at(found, rank_0=later, rank_3=later)
    assert (choose(found).rank, choose(found).either) == (2, (1,))


def test_what_had_ended_before_we_looked_is_not_told_alive_by_that():
    """Its end waits to be told while the look, which has nothing to say of it, is taken."""
    later = START + 10.002
    tree = tuple(Process(pid=400 + n, parent=399 if n == 0 else 400, name=str(n)) for n in range(4))
    found = engine(*(by_signal(n, 9, at=10.0) for n in range(4)), line="", looked=Looked(later, processes=tree))
    found = alive_at(found, rank_0=later)
    assert (choose(found).rank, choose(found).either) == (0, (1, 2, 3))
