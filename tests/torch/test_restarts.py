"""A training that is started again goes on where it was, its ranks forked of the process that had imported torch."""

import pytest
from tests.torch._runs import DDP, PROGRAMS, Run

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("start", ["warm", "exec"])
def test_it_resumes(tmp_path, start):
    kept = tmp_path / "step"
    with Run(tmp_path, 4, f"{PROGRAMS}/resumes.py", kept, options=("--start", start, "--max-restarts", "2")) as run:
        verdict = run.end()

    assert (run.status, verdict["outcome"], verdict["start"]) == (0, "succeeded", start), run.stderr()
    [before] = verdict["attempts"]
    assert (before["rank"], before["cause"], before["exit_code"]) == (2, "killed", 137)
    begun = [int(line.rpartition(" ")[2]) for line in run.output if "begins at step" in line]
    assert len(begun) == 8
    assert sorted(begun)[:4] == [0] * 4
    assert {19, 20} >= set(sorted(begun)[4:])
    assert sum("ended at step 40" in line for line in run.output) == 4
    notes = [entry["note"] for entry in run.journal() if "note" in entry]
    if start == "warm":  # torch was imported once, by the server
        assert sum(note.startswith("ranks are forked of a server that has imported torch") for note in notes) == 1
        assert any("imported their modules already" in note for note in notes)


def test_the_example_is_warm_by_itself(tmp_path):
    """What DistributedDataParallel imports when it is made is in the server, too."""
    with Run(tmp_path, 4, DDP, "--steps", 5) as run:
        verdict = run.end()

    assert (run.status, verdict["start"]) == (0, "warm"), run.stderr()
    [note] = [entry["note"] for entry in run.journal() if "has imported" in entry.get("note", "")]
    assert {"torch,", "torch._dynamo"} <= set(note.split())
