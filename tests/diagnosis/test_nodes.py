"""Jobs on several machines: a node that was lost, against ranks that failed; clocks that are off; who is named, and how.

Each is a course of events that the core is told of; nothing is judged before the end of it.
"""

import pytest

from rankguard.core.machine import step
from rankguard.diagnosis.culprit import choose
from rankguard.diagnosis.verdict import verdict
from rankguard.facts import Exited
from rankguard.model import Begun, Confidence, Ending, Phase
from rankguard.testing import Player
from rankguard.testing.player import spec_of

THREE = """job nprocs=6 nodes=3
0.000 start
0.500 node-joined 0 host-a
0.510 node-joined 1 host-b off=0.0005
0.520 node-joined 2 host-c off=0.0005
0.600 ranks 0-5 spawned"""
PEER = 'peer="Connection closed by peer"'
STOP = "looked\n{0} signalled SIGTERM 5"


def case(text, **spec):
    first, *lines = text.splitlines()
    player = Player(spec_of(first).replace(node="host-a", **spec))
    for line in lines:
        player.play(line)
    return player.job.case()


def judged(text, **spec):
    found = choose(case(text, **spec))
    return found.rank, found.node, found.kind, found.either


def told(text, **spec):
    return verdict(case(text, **spec), "0")


# ── Lost nodes ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_lost_node_is_the_culprit():
    found = told(
        f"{THREE}\n5.000 node-lost 2 closed\n5.000 looked\n5.010 ranks 0-3 killed SIGTERM", run_dir="/runs/7f3a"
    )

    culprit = found.culprit
    assert found.statement == "node host-c (ranks 4, 5 of 6) was lost: its agent is gone"
    assert (found.exit_code, found.owner, found.retry.advice) == (1, "machine", "elsewhere")
    assert (culprit.rank, culprit.name, culprit.local_rank, culprit.node, culprit.pid) == (
        None,
        None,
        None,
        "host-c",
        None,
    )
    assert (culprit.cause.kind, culprit.cause.confidence) == ("node-lost", Confidence.PROVEN)
    assert (culprit.phase, culprit.ending) == (Phase.RUNNING, Ending("lost"))
    assert found.nodes == ("host-a", "host-b", "host-c")
    assert [row.node for row in found.ranks] == ["host-a"] * 2 + ["host-b"] * 2 + ["host-c"] * 2
    assert [row.relation for row in found.ranks] == ["stopped"] * 4 + ["collateral"] * 2
    assert [row.ending.kind for row in found.ranks] == ["signal"] * 4 + ["lost"] * 2
    assert found.ranks[4].cause.statement == "rank 4 of 6 was lost with its node host-c"
    assert found.hints == (
        "see who ended rankguard on host-c: the kernel log (OOM), the scheduler; `rankguard report` there has more",
        "what ranks 4, 5 had printed until then is in /runs/7f3a/rank-4/ …",
    )


def test_its_exit_status_by_class():
    assert told(f"{THREE}\n5.000 node-lost 2 closed", exit_codes="class").exit_code == 86


def test_a_silent_node_and_one_lost_with_it():
    found = told(f"{THREE}\n5.000 node-lost 2 silent silent=5\n5.001 node-lost 1 silent silent=4.9")

    assert found.statement == (
        "node host-c (ranks 4, 5 of 6) was lost: nothing was heard of it for 5.0 s; so was host-b"
    )
    assert "`--node-timeout`" in found.hints[0]


def test_nodes_that_never_came():
    found = told(
        """job nprocs=8 nodes=4
0.000 start
0.500 node-joined 0 host-a
0.700 node-joined 1 host-b
600.000 node-lost 2 never
600.000 looked"""
    )

    assert found.statement == "node 2 and node 3 of 4 have not joined within 600 s; joined: host-a, host-b"
    assert (found.culprit.node, found.culprit.phase, found.exit_code) == ("", Phase.STARTING, 1)
    assert found.retry.because == "not all nodes came, and nothing was started"
    assert "node 0 (host-a)" in found.hints[0]


def test_many_nodes_that_never_came():
    joined = "\n".join(f"0.500 node-joined {n} h{n} count=1" for n in range(5))

    found = told(f"job nprocs=12 nodes=12\n0.000 start\n{joined}\n600.000 node-lost 7 never")

    assert found.statement == "nodes 5-11 of 12 have not joined within 600 s; joined: h0, h1, h2 and 2 others"


def test_nodes_that_could_not_be_placed():
    """Whoever places them knows better than a clock: what is missing, and what to do."""
    found = told(
        "job nprocs=4 nodes=2\n0.000 start\n9.000 node-lost 0 unplaced\n9.000 node-lost 1 unplaced\n9.000 looked"
    )

    assert found.statement == "Ray has not placed all agents within 600 s: bundle 1 of 2 waits"
    (proof,) = found.culprit.cause.evidence
    assert (proof.source, proof.statement) == ("ray", "alive nodes have free host-a GPU 4 of 4")
    assert found.hints == ("--nnodes 1",)
    assert (found.culprit.cause.kind, found.exit_code, found.retry.advice) == ("node-lost", 1, "elsewhere")


def test_the_coordinator_of_an_agent_is_lost():
    found = told("job nprocs=2 share\n0.000 start\n0.010 ranks 0-1 spawned\n30.000 node-lost 0 silent silent=10")

    assert found.statement == "the coordinator's node host-a was lost: nothing was heard of it for 10.0 s"
    assert (found.culprit.node, found.exit_code) == ("host-a", 1)
    assert found.hints == ("the verdict on the whole job is on node host-a, if it still runs there",)


# ── A node against ranks ─────────────────────────────────────────────────────────────────────────────────────────


def test_victims_of_a_node_are_collateral():
    """They complain before silence is a loss."""
    text = f"{THREE}\n10.000 rank 0 exits 1 {PEER}\n10.000 looked\n10.700 node-silent 2 1.0\n11.000 deadline hold"
    text += "\n11.000 looked\n11.010 ranks 1-3 killed SIGTERM\n11.100 deadline echo\n11.500 deadline nodes"
    text += "\n13.000 deadline suspects\n14.700 node-lost 2 silent silent=5"

    assert judged(text) == (None, 2, "node-lost", ())
    assert [row.relation for row in told(text).ranks] == ["collateral", *["stopped"] * 3, *["collateral"] * 2]
    assert told(text).culprit.cause.confidence is Confidence.LIKELY


def test_a_node_lost_while_the_stop_is_held():
    text = f"{THREE}\n10.000 rank 0 exits 1 {PEER}\n10.000 looked\n10.500 node-lost 2 closed"

    assert judged(text) == (None, 2, "node-lost", ())


def test_a_node_that_fell_silent_long_after_the_victims_complained_is_not_their_reason():
    text = f"{THREE}\n10.000 rank 0 exits 1 {PEER}\n10.000 looked\n11.000 deadline hold\n11.000 looked"
    text += "\n11.100 deadline echo\n11.400 node-lost 2 silent silent=-0.7"  # last heard of at 12.1, by its clock

    assert judged(text)[:3] == (0, None, "exit-code")


def test_a_rank_that_failed_before_beats_the_node():
    text = f"{THREE}\n10.000 rank 0 killed SIGSEGV\n10.000 looked\n10.050 node-lost 2 closed"

    assert judged(text) == (0, None, "crash", ())
    assert [row.relation for row in told(text).ranks[4:]] == ["stopped", "stopped"]


def test_a_rank_that_told_late_and_failed_before_beats_the_node():
    """Its own clock says so."""
    text = f"{THREE}\n10.000 node-lost 2 closed\n10.000 looked"
    text += '\n10.010 rank 3 reports exception "ValueError: x" raised=9.99'

    assert judged(text) == (3, None, "unknown", ())
    assert [row.relation for row in told(text).ranks[4:]] == ["independent", "independent"]


def test_a_rank_that_failed_after_the_node_was_lost_is_not_the_culprit():
    text = f"{THREE}\n10.000 node-lost 2 closed\n10.000 looked"
    text += '\n10.010 rank 3 reports exception "ValueError: x" raised=9.9999'

    assert judged(text) == (None, 2, "node-lost", (3,))  # too close to tell: its clock is off by 0.5 ms


def test_while_a_node_was_silent_nobody_can_tell():
    text = f"{THREE}\n7.000 node-silent 2 1.0\n8.000 rank 0 killed SIGSEGV\n8.000 looked\n8.050 node-lost 2 silent silent=2"

    assert judged(text) == (0, None, "crash", (4, 5))


def test_a_rank_s_own_word_outlives_its_node():
    text = f'{THREE}\n9.000 rank 5 reports failed "disk error"\n9.000 looked\n9.010 node-lost 2 closed'

    found = told(text)
    assert (found.culprit.rank, found.culprit.node, found.culprit.local_rank) == (5, "host-c", 1)
    assert found.culprit.ending == Ending("lost")


def test_a_node_lost_while_somebody_ends_the_job_is_no_failure():
    text = f"{THREE}\n10.000 asked SIGTERM\n10.000 signalled SIGTERM 6\n10.500 node-lost 2 closed\n10.600 ranks 0-3 exits 0"

    found = told(text)
    assert (found.outcome, found.culprit) == ("interrupted", None)
    assert found.warnings == (
        "node 2 (host-c) was lost: its agent is gone, while the job was being stopped; what is left there ends by itself, unseen",
    )


# ── Ranks of several nodes ───────────────────────────────────────────────────────────────────────────────────────


def test_a_rank_killed_elsewhere_and_its_victim_here():
    """The victim's news may come first."""
    text = f"{THREE}\n10.000 rank 0 exits 1 {PEER}\n10.000 looked\n10.002 rank 5 killed SIGKILL"

    found = told(text)
    assert (found.culprit.rank, found.culprit.node, found.culprit.local_rank) == (5, "host-c", 1)
    assert found.ranks[0].relation == "collateral"


KILLED = Ending("signal", signal="SIGKILL", number=9)


@pytest.mark.parametrize(
    ("later", "either"),
    [(0.0004, (5,)), (0.0064, ())],
    ids=["within what clocks may be off", "beyond"],
)
def test_two_nodes_compare_by_their_clocks_only_so_far(later, either):
    """The places that two kernels give do not compare at all."""
    first, *lines = THREE.splitlines()
    player = Player(spec_of(first))
    for line in lines:
        player.play(line)
    for rank, place, began in ((5, 1, 10.0 + later), (3, 7, 10.0)):
        step(player.job, Exited(10.01, rank, KILLED, begun=Begun(place, began, began)))

    found = choose(player.job.case())

    assert (found.rank, found.either) == ((3, either) if not either else (found.rank, found.either))
    assert not either or {found.rank, *found.either} == {3, 5}


@pytest.mark.parametrize(("apart", "either"), [(0.0005, (3,)), (0.0013, ())])
def test_two_exceptions_on_two_nodes(apart, either):
    text = f'{THREE}\n10.010 rank 5 reports exception "ValueError: x" raised=10.0\n10.010 looked'
    text += f'\n10.012 rank 3 reports exception "KeyError: y" raised={10.0 + apart}'

    assert judged(text) == (5, None, "unknown", either)


def test_a_crash_whose_news_came_late_was_first():
    text = f"{THREE}\n10.004 rank 0 killed SIGABRT\n10.004 looked\n10.004 rank 3 killed SIGSEGV"

    assert judged(text)[0] == 3


def test_a_rank_that_its_agent_stopped_is_no_culprit():
    text = f"{THREE}\n10.000 rank 4 exits 1 {PEER}\n10.000 looked"
    text += '\n10.002 node-stopping 2 "a rank lost a peer"\n10.002 looked\n10.003 rank 5 killed SIGTERM'

    found = told(text)
    assert found.culprit.rank == 4
    assert found.ranks[5].relation == "stopped"


def test_a_rank_that_its_agent_killed_is_no_culprit():
    text = f"{THREE}\n10.000 rank 4 exits 1\n10.000 looked"
    text += '\n10.002 node-stopping 2 "a rank failed"'
    text += '\n10.050 node-stopping 2 "the grace was over" signal=SIGKILL\n10.060 rank 5 killed SIGKILL'

    found = told(text)
    assert found.culprit.rank == 4
    assert found.ranks[5].relation == "stopped"


def test_one_that_ended_by_our_signal_may_seem_to_have_ended_before_it():
    """The clock of its node is off by up to half a millisecond."""
    text = f"{THREE}\n10.000 rank 0 exits 1\n10.000 looked\n10.000 rank 3 killed SIGTERM"

    assert case(text).ranks[3].signalled_at == 10.0
