"""`--start auto` takes a training as people write it for warm, and what it does with processes and threads works there."""

import pytest
from tests.torch._runs import DDP, PROGRAMS, Run

pytestmark = pytest.mark.torch


def test_a_training_is_warm(tmp_path):
    with Run(tmp_path, 2, DDP, "--steps", "3") as run:
        verdict = run.end()

    assert (run.status, verdict["start"]) == (0, "warm"), run.stderr()
    [note] = [entry["note"] for entry in run.journal() if "forked of a server" in entry.get("note", "")]
    assert "torch.nn.parallel" in note


def test_a_program_that_decides_before_it_imports_is_executed(tmp_path):
    program = tmp_path / "first.py"
    program.write_text("import os\nos.environ['CUDA_VISIBLE_DEVICES'] = ''\nimport torch\n")
    with Run(tmp_path, 2, program) as run:
        verdict = run.end()

    assert (run.status, verdict["start"]) == (0, "exec")
    assert any("first.py:2 runs before" in entry.get("note", "") for entry in run.journal())


def test_workers_threads_and_numbers_are_those_of_an_executed_rank(tmp_path):
    told = {}
    for start in ("exec", "auto"):
        folder = tmp_path / start
        folder.mkdir()
        with Run(folder, 2, f"{PROGRAMS}/workers.py", options=("--start", start)) as run:
            verdict = run.end()
        assert (run.status, verdict["start"]) == (0, "exec" if start == "exec" else "warm"), run.stderr()
        told[start] = sorted(line for line in run.output if "told" in line)
        drawn = [line.split()[2:] for line in run.output if "drawn" in line]
        assert len({number for numbers in drawn for number in numbers}) == 4, drawn

    assert len(told["exec"]) == 2
    assert told["auto"] == told["exec"]
