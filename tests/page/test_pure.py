"""What the page server makes of a journal: the state, the metrics, the events, without a process."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.run.command import Ranks

from rankguard.core import story
from rankguard.facts import (
    Degraded,
    Exited,
    JobStarted,
    Joined,
    NodeJoined,
    NodeLost,
    Perished,
    Ready,
    Spawned,
    Warned,
)
from rankguard.http import metrics, probes
from rankguard.http.events import History, event
from rankguard.http.followed import Followed
from rankguard.jobspec import JobSpec, NodesPlan, WatchPlan
from rankguard.model import Ending
from rankguard.record import to_data

SPEC = JobSpec(
    run_id="7f3a", command=("train.py",), argv=(), nprocs=2, env={}, cwd="/", node='ho"st\\', expect_ready=True
)
OWN = metrics.Own({"supervisor": 0.25}, {"supervisor": 1 << 20}, 1, 0, {("/readyz", 200): 3})


def followed(*facts: object, spec: JobSpec = SPEC) -> Followed:
    run = Followed(lambda: 100.0)
    run.take(json.dumps({"schema": story.VERSION, "spec": to_data(spec)}).encode())
    for fact in facts:
        run.take(story.lines(fact, ()).encode())  # type: ignore[arg-type]
    return run


def samples(run: Followed, name: str) -> dict[str, float]:
    """Labels as text → value."""
    lines = metrics.text(run, OWN).splitlines()
    found = (re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line) for line in lines)
    return {match[1] or "": float(match[2]) for match in found if match is not None}


STARTED = (JobStarted(10.0, 1000.0), Spawned(10.5, 0, 71), Spawned(11.0, 1, 72))


def test_every_rank_has_one_state_and_one_that_never_was_is_waiting() -> None:
    run = followed(JobStarted(10.0, 1000.0), Spawned(10.5, 0, 71))

    states = samples(run, "rankguard_rank_state")
    assert [labels for labels, value in states.items() if value] == [
        r'rank="0",role="default",node="ho\"st\\",state="starting"',
        r'rank="1",role="default",node="ho\"st\\",state="waiting"',
    ]
    assert len(states) == 2 * len(metrics.RANK_STATES)


def test_start_up_by_phase() -> None:
    run = followed(*STARTED, Ready(12.0, 0), Ready(14.0, 1))

    assert samples(run, "rankguard_startup_seconds") == {'phase="launch"': 1.0, 'phase="ready"': 3.0}
    assert list(samples(run, "rankguard_rank_startup_seconds").values()) == [0.5, 1.5, 1.0, 3.0]


def test_what_is_not_known_is_left_out() -> None:
    assert samples(followed(*STARTED), "rankguard_startup_seconds") == {'phase="launch"': 1.0}
    assert samples(followed(*STARTED), "rankguard_memory_limit_bytes") == {}
    assert samples(followed(*STARTED), "rankguard_deaths_total") == {}


def test_a_warning_is_counted() -> None:
    run = followed(*STARTED, Warned(12.0, "the disk is full"), Degraded(13.0, "samples", "they raised"))

    assert samples(run, "rankguard_warnings_total") == {"": 2.0}
    assert samples(run, "rankguard_degraded") == {"": 1.0}


def test_who_has_finished_is_no_failure() -> None:
    run = followed(*STARTED, Ready(12.0, 0), Ready(12.0, 1), Exited(13.0, 0, ending=Ending(kind="exit", code=0)))

    states = [label for label, value in samples(run, "rankguard_rank_state").items() if value]
    assert [state.rpartition("=")[2] for state in states] == ['"finished"', '"ready"']
    assert (probes.ready(run).yes, probes.live(run).yes) == (False, True)


def test_a_supervisor_that_owes_an_answer_is_not_alive() -> None:
    run = followed(*STARTED, Ready(12.0, 0), Ready(12.0, 1))

    assert (probes.ready(run, 9.9).yes, probes.live(run, 9.9).yes) == (True, True)
    assert probes.live(run, 12.4) == (False, "the supervisor has not answered for 12 s")
    assert probes.ready(run, 12.4) == (False, "the supervisor has not answered for 12 s")


def test_before_anything_is_known() -> None:
    run = Followed()

    assert (probes.started(run).yes, probes.ready(run).yes, probes.live(run).yes) == (False, False, True)
    assert samples(run, "rankguard_job_state")['state="starting"'] == 1


def test_processes_of_a_watched_tree_have_rows_and_one_that_succeeds_another_has_its_row() -> None:
    spec = SPEC.replace(nprocs=1, role="engine", watch=WatchPlan(), node="a")
    run = followed(
        JobStarted(10.0, 1000.0),
        Spawned(10.5, 0, 71),
        Joined(11.0, 1, 72, "sglang::scheduler_TP0", role="scheduler", index=0),
        Joined(11.0, 2, 73, "detokenizer", role="detokenizer"),
        Exited(12.0, 2, ending=Ending(kind="exit", code=0)),
        Joined(13.0, 3, 74, "detokenizer", role="detokenizer"),
        Perished(14.0, 75, "git", Ending(kind="exit", code=1), role="helper"),
        Ready(15.0, 0),
        spec=spec,
    )

    assert [labels for labels, value in samples(run, "rankguard_rank_state").items() if value] == [
        'rank="0",role="engine",node="a",state="ready"',
        'rank="0",role="scheduler",node="a",state="ready"',
        'rank="detokenizer",role="detokenizer",node="a",state="ready"',
    ]
    assert samples(run, "rankguard_reported_total") == {'role="helper"': 1.0}
    assert probes.ready(run) == (True, "ready: the engine is ready")


# ── Prometheus ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_prometheus_reads_it_and_its_rules_are_kept(ranks: Ranks) -> None:
    """Of a job that failed, was started again and failed once more: every family that there is."""
    text = "rankguard = __import__('rankguard'); rankguard.this_rank().ready(); time.sleep(0.2)\nif RANK: sys.exit(3)\nsignal.pause()"
    ended = ranks.run(2, text, "--max-restarts", "1")
    run = Followed()
    for line in (ended.folder / "events.jsonl").read_bytes().splitlines():
        run.take(line)
    run.aside = {"samples": {"ranks": [[0, 4096]], "memory": {"limit_bytes": 1 << 30, "used_bytes": 1 << 20}}}
    parser = pytest.importorskip("prometheus_client.parser")

    families = list(parser.text_string_to_metric_families(metrics.text(run, OWN)))
    by_name = {family.name: family for family in families}
    assert all(family.documentation and family.type in ("gauge", "counter") for family in families)
    assert all(name.startswith("rankguard_") for name in by_name)
    for family in families:
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample
            assert not {"pid", "run", "run_id"} & sample.labels.keys()
    seen = [(sample.name, *sorted(sample.labels.items())) for family in families for sample in family.samples]
    assert len(seen) == len(set(seen))
    # promtool's rules: base units, and none in the middle of a name.
    assert not [name for name in by_name if re.search(r"_(ms|milliseconds|minutes|kib|mib|percent)(_|$)", name)]
    deaths = by_name["rankguard_deaths"].samples
    assert [(each.labels, each.value) for each in deaths] == [
        ({"family": "program", "kind": "exit-code", "confidence": "proven"}, 2.0)
    ]
    assert by_name["rankguard_restarts"].samples[0].value == 1
    assert {each.labels["rank"] for each in by_name["rankguard_rank_state"].samples if each.labels["node"]} == {
        "0",
        "1",
    }


def test_every_metric_stands_on_its_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "probes.md").read_text()
    run = followed(*STARTED, Ready(12.0, 0), Ready(12.0, 1), Exited(13.0, 0, ending=Ending(kind="exit", code=3)))
    run.aside = {
        "samples": {
            "ranks": [[0, 1]],
            "memory": dict.fromkeys(["limit_bytes", "used_bytes", "firm_bytes", "growth_bytes_s"], 1),
        }
    }

    names = set(re.findall(r"^# TYPE (\w+)", metrics.text(run, OWN), re.MULTILINE))
    shown = set(re.findall(r"`(rankguard_\w+)", page)) | {
        f"rankguard_{group}{rest}" for group in ("memory", "http") for rest in re.findall(r"`…(_\w+)", page)
    }
    assert names - shown == set()


# ── Events ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _told(history: History, seen: int | None) -> list[bytes]:
    return list(history.since(seen))


def test_events_have_their_lines_number_and_what_is_forgotten_is_told() -> None:
    history = History(most=3)
    for number in range(1, 6):
        history.add(number, event(number, "note", b'{"note": "x"}'))

    assert _told(history, 5) == []
    assert _told(history, 4) == [b'id: 5\nevent: note\ndata: {"note": "x"}\n\n']
    assert _told(history, None)[0] == b'event: gap\ndata: {"from": 1, "to": 2}\n\n'
    assert len(_told(history, None)) == 4
    assert len(_told(history, 2)) == 3


def test_the_memory_of_events_is_bounded_in_bytes() -> None:
    history = History(most_bytes=1000)
    for number in range(1, 100):
        history.add(number, event(number, "fact", b"x" * 300))

    assert 0 < sum(map(len, _told(history, 96))) <= 1000
    history.add(100, event(100, "fact", b"x" * 5000))
    assert [told[:8] for told in _told(history, 99)] == [b"id: 100\n"]


def test_lines_of_a_later_version_are_counted_and_change_nothing() -> None:
    run = followed(*STARTED)
    kinds: Iterable[str | None] = [run.take(b'{"fact": "Teleported", "at": 1}'), run.take(b'{"weather": "fine"}')]

    assert list(kinds) == ["fact", "note"]
    assert run.lines == 6


def test_nodes_of_a_job_on_several_machines() -> None:
    """A rank has the name of its own node; one whose node was lost is lost, and is not said to have ended."""
    spec = SPEC.replace(nodes=NodesPlan(count=2, nproc=1), node="a", expect_ready=False)
    joined = (JobStarted(10.0, 1000.0), NodeJoined(10.1, 0, "a", 0, 1), NodeJoined(10.2, 1, "b", 1, 1, uncertainty=0.5))
    gone = NodeLost(12.0, 1, "b", "closed", "its agent is gone")
    run = followed(*joined, Spawned(10.5, 0, 71), Spawned(11.0, 1, 71), gone, spec=spec)

    assert [labels for labels, value in samples(run, "rankguard_rank_state").items() if value] == [
        'rank="0",role="default",node="a",state="stopping"',
        'rank="1",role="default",node="b",state="lost"',
    ]
    assert samples(run, "rankguard_ranks") == {'node="a"': 1.0, 'node="b"': 1.0}
    assert samples(run, "rankguard_nodes") == {
        'state="missing"': 0.0,
        'state="joined"': 1.0,
        'state="silent"': 0.0,
        'state="lost"': 1.0,
    }
    assert samples(run, "rankguard_node_clock_uncertainty_seconds")['node="b"'] == 0.5


def test_who_has_not_joined_is_named() -> None:
    spec = SPEC.replace(nodes=NodesPlan(count=2, nproc=1), node="a")
    run = followed(JobStarted(10.0, 1000.0), NodeJoined(10.1, 0, "a", 0, 1), spec=spec)

    assert probes.started(run).why == "starting: 1 of 2 nodes have joined; waiting for node 1"
