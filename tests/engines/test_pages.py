"""The pages of docs/engines: each test that they name is there, each test of this folder stands in their tables, and their
command lines are understood. The sketch for SGLang runs.
"""

import ast
import logging
import queue
import re
import shlex
import signal
from pathlib import Path

import pytest
from tests.engines import sglang
from tests.engines.parts import PATIENCE, Stage

import rankguard
from rankguard.cli.verbs import parse
from rankguard.cli.watch import plan

HERE = Path(__file__).parent
PAGES = sorted((HERE.parents[1] / "docs" / "engines").glob("*.md"))
NAMED = re.compile(r"`((?:\w+/)?test_\w+\.py)::(test_\w+)`")


def functions_of(path: Path) -> set[str]:
    return {each.name for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.FunctionDef)}


def test_each_test_that_is_named_is_there() -> None:
    named = {found for page in PAGES for found in NAMED.findall(page.read_text())}
    assert len(named) > 30
    folder = {file: HERE.parent / file if "/" in file else HERE / file for file, _ in named}
    assert [(file, name) for file, name in named if name not in functions_of(folder[file])] == []


def test_each_failure_that_is_played_is_named() -> None:
    named = {name for page in PAGES for _, name in NAMED.findall(page.read_text())}
    played = {name for path in HERE.glob("test_*.py") if path.stem != "test_pages" for name in functions_of(path)}
    assert {name for name in played if name.startswith("test_")} - named == set()


def commands() -> list[str]:
    found = []
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
            text = block.replace("\\\n", " ")
            found += [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    return found


@pytest.mark.parametrize("command", commands(), ids=lambda command: command.rpartition(" -- ")[2].split()[0])
def test_commands_are_understood(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = shlex.split(command)
    assert (program, words[0]) == ("rankguard", "watch")
    engine = tmp_path / words[words.index("--") + 1]
    engine.write_text("#!/bin/sh\n")
    engine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    asked = parse("watch", words[1:])
    assert asked is not None
    assert plan(asked).watch is not None


# ── The sketch of docs/engines/sglang.md, executed ───────────────────────────────────────────────────────────────────


class _Engine:
    """What the sketch calls `engine`."""

    def __init__(self) -> None:
        self.failed: queue.Queue[rankguard.Verdict] = queue.Queue()
        self.fail = self.failed.put


@pytest.mark.slow
@pytest.mark.parametrize("dies", ["while it loads", "while it serves", "not at all"])
def test_the_sketch_of_sglang(stage: Stage, dies: str) -> None:
    page = (HERE.parents[1] / "docs" / "engines" / "sglang.md").read_text()
    sketch = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "keep=True" in block)
    places, engine = ("TP0", "TP1"), _Engine()
    readers, schedulers = sglang.start_schedulers(stage.folder, places)
    detokenizers = sglang.start_detokenizers(stage.folder)

    def serve(infos: list[dict[str, object]]) -> None:
        assert [info["place"] for info in infos] == list(places)
        if dies == "while it serves":
            stage.kill("TP1")
            assert engine.failed.get(timeout=PATIENCE).culprit.name == "TP1"

    names = {
        "EngineFailed": type("EngineFailed", (Exception,), {}),
        "engine": engine,
        "logger": logging.getLogger("test"),
        "load_timeout": PATIENCE,
        "rankguard": rankguard,
        "signal": signal,
        "serve": serve,
        "readers": readers,
        "schedulers": schedulers,
        "scheduler_names": places,
        "detokenizers": detokenizers,
        "detokenizer_names": ["detokenizer"],
    }
    stage.order("TP0", "go")
    stage.met("TP1", "detokenizer")
    stage.kill("TP1") if dies == "while it loads" else stage.order("TP1", "go")
    before = signal.getsignal(signal.SIGQUIT)
    try:
        exec(sketch, names)  # our own page
    except (names["EngineFailed"], rankguard.RankFailed) as error:  # type: ignore[misc]
        assert dies != "not at all"
        assert "process TP1 was killed by SIGKILL" in str(error)  # noqa: PT017  # where nobody fails nothing is raised
    else:
        assert dies == "not at all"
    finally:
        signal.signal(signal.SIGQUIT, before)
        rankguard.stop([*schedulers, *detokenizers], grace=0)
    assert stage.alive() == []
