"""Every message in the source keeps to docs/style.md: its words, no full stop, backticks in pairs.

Read from the syntax tree: what is given to an error, a warning or a hint. What it looks like on a screen is in
`tests/cli/snapshots`.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "rankguard"
STYLE = (ROOT / "docs" / "style.md").read_text()
NOT_OURS = (
    "failed to", "could not", "invalid", "illegal", "please", "sorry", "simply", "obviously", "successfully",
    "internal error", "unexpected error", "oops", "something went wrong", "worker", "replica", "root cause",
)  # fmt: skip
SAYERS = {"UsageError", "SpawnFailed", "error", "warning", "note", "warn", "_warn", "Warned", "_say_once"}
HINTS = {"hint", "statement", "hints"}


def messages() -> Iterator[tuple[str, str]]:
    """Where each stands, and its text; `{}` for what is filled in."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).split(".")[-1]
            given = [*node.args] if name in SAYERS else []
            given += [keyword.value for keyword in node.keywords if keyword.arg in HINTS]
            for value in given:
                for text in texts(value):
                    yield f"{file.relative_to(SOURCE)}:{value.lineno}", text


def texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)


FOUND = dict.fromkeys(messages())


def test_there_are_many() -> None:
    assert len(FOUND) > 100


def test_the_words_are_those_of_the_guide() -> None:
    assert [word for word in NOT_OURS if word not in STYLE] == []


@pytest.mark.parametrize("word", NOT_OURS)
def test_no_message_uses(word: str) -> None:
    assert [found for found in FOUND if re.search(rf"\b{word}\b", found[1], re.IGNORECASE)] == []


def test_no_message_ends_with_a_full_stop_or_shouts() -> None:
    assert [found for found in FOUND if re.search(r"(?<!\.)\.$|!$", found[1])] == []


def test_backticks_come_in_pairs() -> None:
    assert [found for found in FOUND if found[1].count("`") % 2] == []


def test_no_message_begins_with_a_capital_but_for_a_name() -> None:
    names = r"MASTER_|RANK|PROGRAM|SIG|NOTIFY|CUDA|GPU|TORCH|PET_|READY|JSON|Python|\{\}|[A-Z_]+="
    assert [found for found in FOUND if re.match(r"[A-Z]", found[1]) and not re.match(names, found[1])] == []
