"""Shell completion: the real shells run what `rankguard completion` prints. A shell that is not there is skipped."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.terminal import Terminal

from rankguard.cli.completion import SHELLS
from rankguard.cli.options import OPTIONS, TOPICS
from rankguard.cli.verbs import VERBS

RUNS = ("1a2b3c4d", "1a2bffff", "7f3a0001", "drill-a-name-that-is-longer-than-its-column-01234567")
needs = {
    shell: pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed here") for shell in SHELLS
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs to complete, a folder with files, and our command on PATH."""
    home = tmp_path_factory.mktemp("completion")
    for run in RUNS:
        (home / "runs" / run).mkdir(parents=True)
        (home / "runs" / run / "verdict.json").write_text('{"outcome": "succeeded", "statement": "all is well"}')
    (home / "work" / "folder one").mkdir(parents=True)
    for name in ("train.py", "train two.py", "data.bin"):
        (home / "work" / name).write_text("")
    (home / "bin").mkdir()
    command = home / "bin" / "rankguard"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m rankguard "$@"\n')
    command.chmod(0o755)
    for shell in SHELLS:
        script = subprocess.run([command, "completion", shell], capture_output=True, text=True, check=True)
        assert script.stderr == ""
        (home / f"script.{shell}").write_text(script.stdout)
    return home


@pytest.fixture
def env(home: Path) -> dict[str, str]:
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    return os.environ | {
        "PATH": path,
        "RANKGUARD_HOME": str(home / "runs"),
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),  # no runs of anybody else
        "TMPDIR": str(home),
        "TERM": "xterm-256color",
    }


# ── bash ─────────────────────────────────────────────────────────────────────────────────────────────────────────

BASH = """
source "$1"; shift
complete -p rankguard || exit 3
COMP_WORDS=(rankguard "$@")
COMP_CWORD=$#
_rankguard || exit 4
echo ---
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def bash(home: Path, env: dict[str, str]) -> Callable[..., list[str]]:
    def complete(*words: str) -> list[str]:
        """What bash offers for the last of the words."""
        command = ["bash", "--norc", "--noprofile", "-c", BASH, "bash", str(home / "script.bash"), *words]
        ended = subprocess.run(command, capture_output=True, text=True, env=env, cwd=home / "work")
        assert (ended.returncode, ended.stderr) == (0, "")
        told, _, offered = ended.stdout.partition("---\n")
        assert told == "complete -F _rankguard rankguard\n"
        return sorted(filter(None, offered.splitlines()))

    return complete


@needs["bash"]
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ru"], ["run", "runs"]),
        (["repo"], ["report"]),
        (["--v"], ["--version"]),
        (["--no-color", "expl"], ["explain"]),
        (["run", "--rep"], ["--report"]),
        (["run", "--nproc_per"], ["--nproc-per-node"]),
        (["run", "--report", ""], ["json", "none", "text"]),
        (["run", "--report", "="], ["json", "none", "text"]),
        (["run", "--report", "=", "js"], ["json"]),
        (["run", "-n", "c"], ["cpu"]),
        (["run", "--nproc_per_node", "au"], ["auto"]),
        (["run", "--log-dir", ""], ["folder one"]),
        (["run", "--label", "k=v", "--grace", "5", "--qui"], ["--quiet"]),
        (["run", "--grace", ""], []),
        (["run", "--help", ""], sorted([*TOPICS, "all"])),
        (["run", "train"], ["train two.py", "train.py"]),
        (["run", "-n", "4", "tra"], ["train two.py", "train.py"]),
        (["run", "--", "tra"], ["train two.py", "train.py"]),
        (["run", "train.py", "--re"], []),
        (["run", "train.py", "da"], ["data.bin"]),
        (["run", "-m", "train", "--report", ""], ["data.bin", "folder one", "train two.py", "train.py"]),
        (["report", "1a"], ["1a2b3c4d", "1a2bffff"]),
        (["report", "--js"], ["--json"]),
        (["report", "1a2b3c4d", ""], []),
        (["explain", "7"], ["7f3a0001"]),
        (["completion", ""], sorted(SHELLS)),
        (["help", "exit"], ["exit-status"]),
        (["drill", "casc"], ["cascade"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bash(bash, words: list[str], expected: list[str]) -> None:
    assert bash(*words) == expected


@needs["bash"]
def test_bash_offers_all_runs(bash) -> None:
    assert bash("report", "") == sorted(RUNS)


@needs["bash"]
def test_bash_knows_every_verb_and_option(bash) -> None:
    assert bash("") == sorted([*VERBS, "--help", "--version", "--no-color"])
    assert set(bash("run", "-")) == {name for option in OPTIONS for name in option.names} | {"-h", "--help"}
    for name, verb in VERBS.items():
        if name != "run":
            own = {n for option in verb.options for n in option.names}
            assert set(bash(name, "-")) == own | {"-h", "--help", "--no-color"}


@needs["bash"]
def test_bash_asks_for_a_value_exactly_where_one_follows(bash) -> None:
    """After an option with a value the next word is that value; after a flag it is PROGRAM."""
    for option in OPTIONS:
        offered = bash("run", option.name, "trai")
        assert (offered == []) == (option.metavar is not None), option.name


COMPLETED = {
    "rankguard repo\t1a2b3\t": "rankguard report 1a2b3c4d",
    "rankguard run --repo\tj\tda\t": "rankguard run --report json data.bin",
    "rankguard run train.py da\t": "rankguard run train.py data.bin",
    "rankguard comple\tf\t": "rankguard completion fish",
}
"""What is typed in an interactive shell, with tabs, and what it becomes."""
SHOW = "\x01echo GOT \n"
"""To the beginning of the line, then so that the line is printed and not executed."""


@needs["bash"]
def test_an_interactive_bash_completes_on_tab(home: Path, env: dict[str, str]) -> None:
    with Terminal("bash", "--norc", "--noprofile", "-i", env=env | {"PS1": "$ "}, cwd=home / "work") as term:
        term.expect("$ ")
        term.send(f"source {home}/script.bash && echo sour''ced\n")
        term.expect("sourced")
        for typed, completed in COMPLETED.items():
            term.send(f"{typed}{SHOW}")
            term.expect(f"GOT {completed}\r\n")
        term.send("exit\n")
        assert term.wait() == 0


# ── zsh and fish ─────────────────────────────────────────────────────────────────────────────────────────────────


@needs["zsh"]
def test_zsh(home: Path, env: dict[str, str]) -> None:
    """zsh completes in an interactive shell only."""
    with Terminal("zsh", "-f", "-i", env=env | {"PS1": "$ "}, cwd=home / "work") as term:
        term.expect("$ ")
        term.send(f"autoload -U compinit && compinit -u -D && source {home}/script.zsh && echo sour''ced\n")
        term.expect("sourced")
        term.send("bindkey -e\n")
        for typed, completed in COMPLETED.items():
            term.send(f"{typed}{SHOW}")
            term.expect(f"GOT {completed}\r\n")
        term.send("exit\n")
        term.wait()


@needs["fish"]
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rankguard ru", ["run", "runs"]),
        ("rankguard run --repo", ["--report"]),
        ("rankguard run --report ", ["json", "none", "text"]),
        ("rankguard run --report js", ["json"]),
        ("rankguard run -n 2 da", ["data.bin"]),
        ("rankguard run data.bin --re", []),
        ("rankguard run data.bin tra", ["train two.py", "train.py"]),
        ("rankguard report 1a", ["1a2b3c4d", "1a2bffff"]),
        ("rankguard completion ", sorted(SHELLS)),
        ("rankguard run --log-dir fo", ["folder one/"]),
    ],
)
def test_fish(home: Path, env: dict[str, str], line: str, expected: list[str]) -> None:
    command = f"source {home}/script.fish; complete -C {line!r}"
    ended = subprocess.run(
        ["fish", "--no-config", "-c", command], capture_output=True, text=True, env=env, cwd=home / "work"
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(row.partition("\t")[0] for row in ended.stdout.splitlines()) == expected


# ── The command itself ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_can_be_read(home: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here")
    checked = subprocess.run([shell, "-n", home / f"script.{shell}"], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
