"""`rankguard watch --nnodes N`: the same command once per node, real engines and real processes, on one machine's loopback.

Each node has an engine of its own with a session of its own, so that all of a node can be killed at once, as a container is.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.faults.nest import children
from tests.watch.engines import CORE, HEAD, Engines, Watched
from tests.watch.test_watch import alive

from rankguard.cli.verbs import parse
from rankguard.cli.watch import plan
from rankguard.errors import UsageError
from rankguard.linux import ports

SAID = "all 2 nodes are watched together"
LASTING = HEAD + "told(root=os.getpid())\ntime.sleep(3600)\n"
Start = Callable[..., list[Watched]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(text of node 0's engine, of node 1's, *options)`: both under watch; what still lives at the end is killed."""
    port, lock = ports.hold_free_port()  # no outgoing connection is given it before node 0 listens
    started = list[Watched]()

    def nodes(*texts: str, options: tuple[str, ...] = (), only: tuple[int, ...] = (0, 1)) -> list[Watched]:
        for number in only:
            last_word = tmp_path / f"last-{number}"
            last_word.touch()
            folder = tmp_path / f"node-{number}"
            folder.mkdir()
            words = ["--nnodes", "2", "--node-rank", str(number), "--rdzv-endpoint", f"127.0.0.1:{port}"]
            words += ["--termination-log", str(last_word), "--settle", "0.2", *options]
            with open(folder / "err", "w") as err:
                started.append(Engines(folder).start(texts[number], *words, stderr=err))
        return started

    yield nodes
    for watched in started:
        kill_all_of(watched)
    lock.close()


def kill_all_of(watched: Watched) -> None:
    """All of a node at once, as when its container is killed."""
    found, queue = {watched.process.pid}, [watched.process.pid]
    if watched.process.poll() is not None:
        return
    while queue:
        pid = queue.pop()
        os.kill(pid, signal.SIGSTOP)  # it starts no more
        fresh = [each for each in children(pid) if each not in found]
        found.update(fresh)
        queue += fresh
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    watched.process.communicate()


def stderr_of(watched: Watched) -> str:
    return (watched.folder.parent / "err").read_text()


def until_said(watched: Watched, text: str, times: int = 1) -> None:
    while stderr_of(watched).count(text) < times:
        assert watched.process.poll() is None, stderr_of(watched)
        time.sleep(0.01)


class End(NamedTuple):
    status: int
    verdict: dict[str, Any]
    stdout: str
    stderr: str


def ended(watched: Watched) -> End:
    out, _err = watched.process.communicate(timeout=60)
    said = stderr_of(watched)
    return End(watched.process.returncode, json.loads((watched.folder / "verdict.json").read_text()), out, said)


def council_of(watched: Watched) -> int:
    """The coordinator, a child of node 0's supervisor."""
    queue = [watched.process.pid]
    while queue:
        pid = queue.pop()
        with open(f"/proc/{pid}/cmdline") as cmdline:
            if "rankguard.supervisor.nodes.council" in cmdline.read():
                return pid
        queue += children(pid)
    raise AssertionError("there is no coordinator")


def without_warnings(verdict: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in verdict.items() if key != "warnings"}


@pytest.mark.slow
def test_each_node_shows_its_own_engine_and_all_end_well(start: Start) -> None:
    nodes = start(HEAD + "told()\nprint('engine zero')\n", HEAD + "told()\nprint('engine one')\n")
    for each in nodes:
        each.pids()

    ends = [ended(each) for each in nodes]

    assert [(end.status, end.stdout) for end in ends] == [(0, "engine zero\n"), (0, "engine one\n")], ends
    assert ends[0].verdict == ends[1].verdict
    assert ends[0].verdict["outcome"] == "succeeded"
    assert ends[0].verdict["statement"] == "the engines of all 2 nodes ended with exit code 0"
    assert len(ends[0].verdict["nodes"]) == 2


def test_a_worker_of_one_node_ends_the_engines_of_all_with_one_verdict(start: Start, tmp_path: Path) -> None:
    nodes = start(CORE, CORE)
    pids = [each.pids() for each in nodes]
    for each, told in zip(nodes, pids, strict=True):
        each.joined(told["workers"])
        until_said(each, SAID)

    os.kill(pids[1]["workers"][1], signal.SIGKILL)
    ends = [ended(each) for each in nodes]

    verdict = ends[0].verdict
    assert [end.status for end in ends] == [137, 137], ends[0].stderr
    assert without_warnings(verdict) == without_warnings(ends[1].verdict)
    culprit = verdict["culprit"]
    assert (culprit["pid"], culprit["name"], culprit["rank"]) == (pids[1]["workers"][1], "VLLM::Worker_TP1", None)
    assert verdict["statement"].startswith("node 1 (")
    assert [end.stderr.count("error: node 1 (") for end in ends] == [1, 1]
    # Who was told of it, at once, and not by itself.
    said = f"VLLM::Worker_TP1 (pid {culprit['pid']}) was ended by SIGKILL"
    assert f"{culprit['node']}: {said}" in ends[0].stderr
    rows = [(row["name"], row["relation"]) for row in verdict["ranks"]]
    assert rows.count(("VLLM::Worker_TP1", "culprit")) == 1
    assert [relation for _name, relation in rows].count("stopped") == 7
    everybody = [pid for told in pids for pid in (told["root"], told["core"], *told["workers"])]
    assert [pid for pid in everybody if alive(pid)] == []
    last = [(tmp_path / f"last-{number}").read_text().splitlines() for number in (0, 1)]
    assert last[0][:2] == last[1][:2]
    assert "name=VLLM::Worker_TP1" in last[0][0]
    assert json.loads(last[0][1])["statement"] == verdict["statement"]


@pytest.mark.slow
def test_an_engine_that_ends_badly_ends_the_others(start: Start) -> None:
    """Its node ends it no more, and tells of it all the same: also one that had not been met yet."""
    nodes = start(LASTING, HEAD + "told()\nsys.exit(7)\n")
    root = nodes[0].pids()["root"]  # and only then the other one can tell, and end
    nodes[1].pids()

    ends = [ended(each) for each in nodes]

    assert [end.status for end in ends] == [7, 7]
    assert [end.verdict["culprit"]["cause"]["kind"] for end in ends] == ["exit-code", "exit-code"]
    assert not alive(root)


@pytest.mark.slow
def test_a_request_on_one_node_is_one_to_all(start: Start) -> None:
    drains = HEAD + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\ntold()\ntime.sleep(3600)\n"
    nodes = start(drains, drains)
    for each in nodes:
        each.pids()
        until_said(each, SAID)

    nodes[1].process.send_signal(signal.SIGTERM)
    ends = [ended(each) for each in nodes]

    assert [(end.status, end.verdict["outcome"]) for end in ends] == [(0, "interrupted")] * 2
    assert ends[0].verdict["statement"] == ends[1].verdict["statement"]
    assert "stopped by SIGTERM" in ends[0].verdict["statement"]
    assert ends[0].verdict["stopped_by"]["pid"] == os.getpid()


@pytest.mark.slow
@pytest.mark.parametrize("gone", [0, 1])
def test_a_node_that_is_lost_ends_the_others(start: Start, gone: int) -> None:
    nodes = start(CORE, CORE, options=("--orphan-timeout", "1"))
    pids = [each.pids() for each in nodes]
    for each in nodes:
        until_said(each, SAID)

    kill_all_of(nodes[gone])
    left = ended(nodes[1 - gone])

    assert (left.status, left.verdict["culprit"]["cause"]["kind"]) == (1, "node-lost"), left.stderr
    assert ("node 1 (" if gone else "coordinator") in left.verdict["statement"], left.stderr
    told = pids[1 - gone]
    assert [pid for pid in (told["root"], told["core"], *told["workers"]) if alive(pid)] == []


@pytest.mark.slow
@pytest.mark.parametrize("gone", [0, 1])
def test_with_on_failure_report_a_lost_node_is_only_told(start: Start, gone: int) -> None:
    nodes = start(LASTING, LASTING, options=("--on-failure", "report", "--orphan-timeout", "1"))
    roots = [each.pids()["root"] for each in nodes]
    for each in nodes:
        until_said(each, SAID)

    kill_all_of(nodes[gone])
    left = nodes[1 - gone]
    until_said(left, "warning: node 1 (" if gone else "this engine is watched alone")

    assert alive(roots[1 - gone])
    left.process.send_signal(signal.SIGTERM)
    assert ended(left).verdict["outcome"] == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_coordinator_is_lost_and_nothing_happens_to_the_engines(start: Start, number: int) -> None:
    nodes = start(CORE, CORE, options=("--orphan-timeout", "4"))
    pids = [each.pids() for each in nodes]
    for each, told in zip(nodes, pids, strict=True):
        each.joined(told["workers"])
        until_said(each, SAID)

    os.kill(council_of(nodes[0]), number)
    for each in nodes:
        until_said(each, SAID, times=2)

    assert all(alive(told["root"]) for told in pids)
    os.kill(pids[0]["workers"][0], signal.SIGKILL)
    ends = [ended(each) for each in nodes]
    assert [end.status for end in ends] == [137, 137]
    assert ends[0].verdict["statement"] == ends[1].verdict["statement"]
    assert ends[0].verdict["statement"].startswith("node 0 (")


@pytest.mark.slow
def test_an_engine_waits_for_no_other_node(start: Start) -> None:
    options = ("--join-timeout", "0.3", "--orphan-timeout", "1")
    (alone,) = start("", LASTING, options=options, only=(1,))
    root = alone.pids()["root"]
    until_said(alone, "until it is, this engine is watched alone")

    assert alive(root)
    os.kill(root, signal.SIGKILL)
    end = ended(alone)

    assert (end.status, end.verdict["culprit"]["cause"]["kind"]) == (137, "killed")
    assert "this is the verdict of this node alone" in end.verdict["warnings"][-1]


@pytest.mark.slow
def test_who_never_comes_is_told_and_waited_for_no_longer_than_the_engine(start: Start) -> None:
    options = ("--join-timeout", "0.3", "--orphan-timeout", "1")
    (zero,) = start(LASTING, "", options=options, only=(0,))
    root = zero.pids()["root"]
    until_said(
        zero, "warning: node 1 of 2: it has not joined within 0.3 s; the engines that are there are watched without it"
    )

    os.kill(root, signal.SIGSEGV)

    assert (ended(zero).status, alive(root)) == (139, False)


@pytest.mark.slow
def test_each_node_has_its_own_readiness(start: Start) -> None:
    """Of node 1 it never comes: that is a failure of its engine, and so of all."""
    ready = "told()\nprint('up', sys.argv[1][-6], flush=True)\ntime.sleep(3600)\n"
    texts, sign = (HEAD + ready, HEAD + ready.replace("up", "down")), ("--ready-log", "^up")
    nodes = start(*texts, options=(*sign, "--ready-timeout", "600"), only=(0,))
    nodes[0].pids()
    until_said(nodes[0], "the engine is ready")
    start(*texts, options=(*sign, "--ready-timeout", "0.5"), only=(1,))
    nodes[1].pids()

    ends = [ended(each) for each in nodes]

    assert [end.status for end in ends] == [124, 124]
    assert [end.verdict["culprit"]["cause"]["kind"] for end in ends] == ["ready-timeout"] * 2
    assert ends[0].verdict["statement"].startswith("node 1 (")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nnodes", "2", "--", "x"], "expected --rdzv-endpoint too"),
        (["--nnodes", "2:4", "--rdzv-endpoint", "h", "--", "x"], "expected one number"),
        (["--nnodes", "2", "--rdzv-endpoint", "0.0.0.0:1", "--", "x"], "by which other nodes reach node 0"),
        (["--nnodes", "2", "--rdzv-endpoint", "h", "--node-rank", "2", "--", "x"], "expected 0 to 1"),
        (["--nnodes", "2", "--rdzv-endpoint", "h", "--match", "x"], "watched on its own node alone"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], said: str) -> None:
    asked = parse("watch", words)
    assert asked is not None
    with pytest.raises(UsageError, match=said):
        plan(asked)


def test_the_engine_s_own_options_of_the_same_names_are_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LWS_LEADER_ADDRESS", "pod-0.example.com")
    monkeypatch.setenv("LWS_WORKER_INDEX", "1")
    asked = parse("watch", ["--run-dir", str(tmp_path / "r"), "--nnodes", "2", "--", "engine", "--nnodes", "9"])
    assert asked is not None
    spec = plan(asked)

    assert spec.command == ("engine", "--nnodes", "9")
    assert spec.share is not None
    assert (spec.share.host, spec.share.port, spec.share.count, spec.share.node) == ("pod-0.example.com", 29490, 2, 1)
    assert spec.nodes is None
