"""`--help`: every page fits on a screen of 24 lines of 80 columns with the prompt below it, and names what there is."""

import re
import subprocess
import sys

import pytest

from rankguard.cli import help as pages
from rankguard.cli.arguments import options_in
from rankguard.cli.options import OPTIONS, TOPICS
from rankguard.cli.topics import PAGES
from rankguard.cli.verbs import VERBS, common

LINES, COLUMNS = 23, 80
SCREENS = [
    ("--help",),
    ("help",),
    *(("run", "--help", topic) for topic in TOPICS),
    *((verb, "--help") for verb in VERBS),
    *(("help", verb) for verb in VERBS),
    *(("help", page) for page in PAGES),
    *(("help", topic) for topic in TOPICS),
]


def rankguard(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "rankguard", *words], capture_output=True, text=True)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]):
    """What a command of help prints, in this process: forty interpreters would be slow."""
    from rankguard.cli import main

    def show(*words: str) -> str:
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return show


@pytest.mark.parametrize("words", SCREENS, ids=" ".join)
def test_a_page_fits_on_a_screen(shown, words: tuple[str, ...]) -> None:
    lines = shown(*words).splitlines()

    assert [line for line in lines if len(line) > COLUMNS] == []
    assert len(lines) <= LINES
    assert [line for line in lines if line != line.rstrip()] == []


def test_no_word_asks_for_help() -> None:
    bare, asked = rankguard(), rankguard("--help")
    assert (bare.returncode, bare.stdout, bare.stderr) == (0, asked.stdout, "")


def test_every_option_is_in_its_topic_and_in_all(shown) -> None:
    everything = shown("run", "--help", "all")
    for option in OPTIONS:
        for name in option.names:
            assert re.search(rf"(?<![\w-]){name}(?![\w-])", shown("run", "--help", option.topic)), name
            assert re.search(rf"(?<![\w-]){name}(?![\w-])", everything), name
    assert max(map(len, everything.splitlines())) <= COLUMNS


def test_the_overview_names_every_verb_and_page(shown) -> None:
    overview = shown("--help")
    assert [name for name in (*VERBS, *PAGES) if name not in overview] == []
    of_run = shown("run", "--help")
    assert [name for name in (*TOPICS, *PAGES, "all") if name not in of_run] == []


def test_help_is_the_same_by_either_way(shown) -> None:
    for verb in VERBS:
        assert shown(verb, "--help") == shown("help", verb) == shown(verb, "-h")
    for topic in TOPICS:
        assert shown("run", "--help", topic) == shown("help", "run", topic) == shown("help", topic)


def test_an_option_that_stands_before_help_is_no_error(shown) -> None:
    assert shown("run", "-n", "4", "--help") == shown("run", "--help")
    assert shown("run", "--help", "-n") == shown("run", "--help")


def test_what_stands_behind_the_program_is_its_own(tmp_path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import sys; print(sys.argv[1:])")
    ended = rankguard("run", str(program), "--help")
    assert (ended.returncode, ended.stdout) == (0, "['--help']\n")


def test_every_verb_exists() -> None:
    from rankguard.cli import _function

    assert [name for name in VERBS if not callable(_function(name))] == []


@pytest.mark.parametrize("verb", VERBS)
def test_the_options_of_every_verb_are_taken_as_they_are_written(verb) -> None:
    options = [*VERBS[verb].options, *common(verb)]
    words = [name for option in options for name in option.names]

    assert [options_in(word, ["x"], options)[0][0].name for word in words] == [o.name for o in options for _ in o.names]


def test_help_texts_keep_to_the_guide() -> None:
    texts = {o.name: o.help for verb in VERBS.values() for o in verb.options}
    texts |= {f"{verb.name} {o.name}": o.help for verb in VERBS.values() for o in verb.operands}
    texts |= {verb.name: verb.summary for verb in VERBS.values()}
    assert {name: text for name, text in texts.items() if text.endswith(".") or not text} == {}


def test_a_narrow_cell_is_wrapped_under_itself() -> None:
    assert list(pages.rows([("--short", "text"), ("--a-very-long-option-that-fills-the-column", "word " * 20)])) == [
        "  --short  text",
        "  --a-very-long-option-that-fills-the-column",
        "           word word word word word word word word word word word word word word",
        "           word word word word word word",
    ]
