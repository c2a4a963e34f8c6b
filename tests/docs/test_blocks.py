"""Every block of code in the pages can be taken at its word: it is read here, and run by `test_played.py`."""

import subprocess
from pathlib import Path

import pytest
from tests.docs.blocks import Block, blocks, commands, pages, prose, stale, understood, wrong
from tests.makers import maker_of

from rankguard.errors import UsageError

ALL = list(blocks())


def test_every_block_can_be_read() -> None:
    assert len(ALL) > 80
    assert [fault for block in ALL if (fault := wrong(block))] == []


def test_the_page_that_counts_them_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    maker = maker_of("blocks")
    assert maker.page() == maker.PAGE.read_text(), "make docs"
    with capsys.disabled():
        print(f"\n{maker.counted()}")


def test_shell_is_shell(tmp_path: Path) -> None:
    script = [f"bash -n <<'__END__' || echo {block}\n{shell(block)}\n__END__" for block in ALL if shell(block)]
    read = subprocess.run(["bash"], input="\n".join(script), capture_output=True, text=True, cwd=tmp_path)

    assert (read.stdout, read.stderr) == ("", "")


def shell(block: Block) -> str:
    return "\n".join(commands(block)) if block.language in ("console", "sh", "bash") else ""


def test_yaml_is_yaml() -> None:
    yaml = pytest.importorskip("yaml")
    for block in ALL:
        if block.language == "yaml":
            assert list(yaml.safe_load_all(block.text)), block


def test_options_in_running_text_are_options() -> None:
    assert [each for path in pages() for each in stale(path)] == []


def test_no_code_is_only_indented() -> None:
    """Such a block has no language, so nobody could read it."""
    for path in pages():
        before = ""
        for line in prose(path).splitlines():
            assert not (line.startswith("    ") and line.strip() and not before.strip()), f"{path.name}: {line}"
            before = line


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("rankguard run -n 8 --max-restart 3 train.py", None),  # an abbreviation
        ("rankguard run -n 8 --max-retries 3 train.py", "--max-retries"),
        ("srun rankguard run -n eight train.py", "`-n eight`: expected"),
        ("rankguard watch --settel 3 -- vllm serve", "--settel"),
        ("x=1 rankguard runs --jsn | jq . && true", "--jsn"),
        ("make demo; make tset", "there is no target ['tset']"),
        ("ssh host 'cd /work && rankguard run --no-such train.py'", "--no-such"),
        ("rankguard report   # --no-such, as a comment", None),
    ],
)
def test_what_is_stale_is_found(command: str, said: str | None) -> None:
    if said is None:
        understood(command)
    else:
        with pytest.raises(UsageError, match=said.replace("[", r"\[")):
            understood(command)


@pytest.mark.parametrize(
    ("language", "text", "said"),
    [
        ("", "x", "a block without a language"),
        ("python", "def f(:", "invalid syntax"),
        ("json", "{'a': 1}", "Expecting property name"),
        ("toml", "a = ", "Invalid value"),
        ("console", "rankguard runs", "a console without a command"),
        ("ini", "COMMAND=run -n 8 --no-such x.py", "--no-such"),
    ],
)
def test_what_is_no_code_is_found(language: str, text: str, said: str) -> None:
    assert said in str(wrong(Block("page.md", 1, language, text, None)))
