"""docs/command-line.md and man/rankguard.1 are what the tables make of them, and the man page is one.

`make docs`, or `UPDATE_GOLDEN=1 pytest tests/docs/test_reference.py`, writes them anew.
"""

import os
import re
import shutil
import subprocess
from types import ModuleType

import pytest
from tests.makers import maker_of

from rankguard.cli.options import OPTIONS
from rankguard.cli.verbs import VERBS


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    module = maker_of("reference")
    if os.environ.get("UPDATE_GOLDEN"):
        module.PAGE.write_text(module.page())
        module.MAN.write_text(module.man())
    return module


def test_the_page_is_up_to_date(maker: ModuleType) -> None:
    assert maker.page() == maker.PAGE.read_text()


def test_the_man_page_is_up_to_date(maker: ModuleType) -> None:
    assert maker.man() == maker.MAN.read_text()


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed here")
def test_roff_finds_nothing_wrong(maker: ModuleType) -> None:
    set_ = subprocess.run(["groff", "-man", "-ww", "-Tutf8", maker.MAN], capture_output=True, text=True)
    assert (set_.returncode, set_.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed here")
def test_man_shows_all_of_it_in_80_columns(maker: ModuleType) -> None:
    env = os.environ | {"MANWIDTH": "80", "LC_ALL": "C.UTF-8", "MANPAGER": "cat", "MAN_KEEP_FORMATTING": ""}
    shown = subprocess.run(["man", "--warnings", "-l", maker.MAN], capture_output=True, text=True, env=env)
    plain = re.sub(r".\x08", "", shown.stdout)

    assert (shown.returncode, shown.stderr) == (0, "")
    assert [line for line in plain.splitlines() if len(line) > 80] == []
    for option in OPTIONS:
        assert all(re.search(rf"(?<![\w-]){name}(?![\w-])", plain) for name in option.names), option.name
    assert [name for name in VERBS if f"rankguard {name}" not in plain] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--log-dir DIR", r"\-\-log\-dir DIR"),
        (".hidden", r"\&.hidden"),
        ("'quoted'", r"\&'quoted'"),
        (r"Ctrl-\ and `a\b`", r"Ctrl\-\e and \fBa\eb\fP"),
        ("SIGUSR1 …", r"SIGUSR1 \[u2026]"),
    ],
)
def test_text_is_no_request(maker: ModuleType, text: str, expected: str) -> None:
    assert maker.roff(text) == expected
