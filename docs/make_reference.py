# ruff: noqa: INP001  # a script, not a package
"""Makes docs/command-line.md and man/rankguard.1 from the tables of verbs, options and topics:
`PYTHONPATH=src python docs/make_reference.py`. A test holds both to the tables.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from rankguard._version import __version__  # noqa: E402  # the path comes first
from rankguard.cli.help import option_row  # noqa: E402
from rankguard.cli.options import OPTIONS, TOPICS, Option  # noqa: E402
from rankguard.cli.topics import PAGES, Topic  # noqa: E402
from rankguard.cli.verbs import VERBS, Verb, usage_of  # noqa: E402

PAGE = ROOT / "docs" / "command-line.md"
MAN = ROOT / "man" / "rankguard.1"

INTRODUCTION = """rankguard starts the ranks of a distributed job on one machine and watches them. When one fails it
stops the others at once, says which failed first, why and what proves it, and leaves nothing running. PROGRAM is a Python
file, a module (-m) or any executable; the words behind it are its own. Options may be written with hyphens or underscores and
abbreviated; those of torchrun keep their names, and PET_* variables are their defaults. Every verb also takes --help and
--no-color."""

EXAMPLES = (
    ("rankguard run -n 8 train.py --lr 3e-4", "eight ranks of a Python file; `train.py` gets `--lr`"),
    ("rankguard run -n gpu --ready-timeout 600 -m my.server", "a rank for each GPU, and ten minutes to become ready"),
    ("rankguard run -n 8 --debug 3 train.py", "rank 3 has the terminal, for `breakpoint()` and pdb"),
    ("rankguard run -n 8 --report json train.py | jq .cause.kind", "the verdict as JSON on stdout"),
    ("rankguard report; rankguard explain", "what the newest run came to, and how it came to that"),
    ("rankguard drill oom", "a real out-of-memory kill on this machine, to see what that looks like"),
)
FILES = (
    ("verdict.json", "how the job ended, in the shape of the JSON Schema that comes with rankguard"),
    ("state.json", "the same while the job runs"),
    ("events.jsonl", "every fact and every decision, with its reason"),
    ("rank-N/attempt-0/stdout.log, stderr.log", "what rank N printed"),
)

# ── docs/command-line.md ─────────────────────────────────────────────────────────────────────────────────────────


def page() -> str:
    """The whole page."""
    return "\n".join([*_head(), *_of_run(), *_of_others(), *_pages(), *_examples()])


def _head() -> Iterator[str]:
    yield "# The command line\n"
    yield "Made by `docs/make_reference.py` from the tables in `src/rankguard/cli/`; do not edit it by hand."
    yield "`rankguard VERB --help` shows the same, `man rankguard` too. torchrun's options: [from-torchrun.md](from-torchrun.md); every signal and exit status: [signals.md](signals.md).\n"
    yield _one_line(INTRODUCTION) + "\n"
    yield from _table(("verb", "does"), ((f"[`{v.name}`](#{_anchor(v)})", v.summary) for v in VERBS.values()))


def _anchor(verb: Verb) -> str:
    return f"rankguard-{verb.name}"


def _of_run() -> Iterator[str]:
    run = VERBS["run"]
    yield "## rankguard run\n"
    yield f"```text\n{usage_of(run)}\n```\n"
    for topic, what in TOPICS.items():
        yield f"### {topic}: {what}\n"
        yield from _table(("option", "meaning (default)"), map(_cells, (o for o in OPTIONS if o.topic == topic)))


def _of_others() -> Iterator[str]:
    for verb in VERBS.values():
        if verb.name == "run":
            continue
        yield f"## rankguard {verb.name}\n"
        yield f"{verb.summary[0].upper()}{verb.summary[1:]}.\n"
        yield f"```text\n{usage_of(verb)}\n```\n"
        if verb.about:
            yield verb.about + "\n"
        told = [(f"`{operand.name}`", operand.help) for operand in verb.operands]
        told += map(_cells, verb.options)
        if told:
            yield from _table(("word", "meaning (default)"), told)


def _pages() -> Iterator[str]:
    for topic in PAGES.values():
        yield f"## {topic.name.replace('-', ' ').capitalize()}\n"
        yield topic.text + "\n"
        yield from _table(("", ""), ((f"`{left}`", right) for left, right in topic.rows))
        if topic.end:
            yield _one_line(topic.end) + "\n"


def _examples() -> Iterator[str]:
    yield "## Examples\n"
    yield from _table(("command", "what it does"), ((f"`{_in_table(command)}`", what) for command, what in EXAMPLES))


def _cells(option: Option) -> tuple[str, str]:
    left, right = option_row(option)
    return f"`{left}`", right


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield f"| {head[0]} | {head[1]} |\n|---|---|"
    for left, right in rows:
        yield f"| {left} | {_in_table(right)} |"
    yield ""


def _in_table(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\|", text)


def _one_line(text: str) -> str:
    return " ".join(text.split())


# ── man/rankguard.1 ──────────────────────────────────────────────────────────────────────────────────────────────


def man() -> str:
    """The manual page, in roff's man macros (groff_man(7))."""
    return "\n".join(_man()) + "\n"


def _man() -> Iterator[str]:
    yield '.\\" Made by docs/make_reference.py; do not edit it by hand.'
    yield f'.TH RANKGUARD 1 "" "rankguard {__version__}" "User Commands"'
    yield ".nh\n.ad l"  # no word is broken and none is spread out: options and paths are read as they are typed
    yield ".SH NAME"
    yield "rankguard \\- launch the ranks of a distributed job, and know which failed first, and why"
    yield ".SH SYNOPSIS"
    for n, verb in enumerate(VERBS.values()):
        yield from [".br"] if n else []
        usage = re.sub(r"[A-Z]{2,}", lambda m: f"\\fI{m[0]}\\fP", roff(verb.usage))
        yield f"\\fBrankguard {verb.name}\\fP {usage}".rstrip()
    yield ".SH DESCRIPTION"
    yield roff(_one_line(INTRODUCTION))
    yield ".SH VERBS"
    for verb in VERBS.values():
        yield from _tagged(f"\\fB{verb.name}\\fP", verb.summary)
    yield ".SH OPTIONS OF RUN"
    for topic, what in TOPICS.items():
        yield f".SS {roff(f'{topic.capitalize()}: {what}')}"
        for option in OPTIONS:
            if option.topic == topic:
                yield from _tagged(_names(option), option.help)
    yield ".SH OPTIONS OF OTHER VERBS"
    for verb in VERBS.values():
        if verb.name != "run" and (verb.options or verb.about):
            yield f".SS {verb.name}"
            if verb.about:
                yield roff(verb.about)
            for option in verb.options:
                yield from _tagged(_names(option), option.help)
    yield from _man_page(PAGES["exit-status"], "EXIT STATUS")
    yield from _man_page(PAGES["signals"], "SIGNALS")
    yield from _man_page(PAGES["environment"], "ENVIRONMENT")
    yield ".SH FILES"
    yield roff("Of each run, in a folder of its own (`rankguard help environment` says where):")
    for name, what in FILES:
        yield from _tagged(f"\\fI{roff(name)}\\fP", what)
    yield ".SH EXAMPLES"
    for command, what in EXAMPLES:
        yield from _tagged(f"\\fB{roff(command)}\\fP", what)
    yield ".SH SEE ALSO"
    yield "\\fBsystemd\\-notify\\fP(1), \\fBsd_notify\\fP(3), \\fBcgroups\\fP(7)"
    names = ", ".join(f"`rankguard help {word}`" for word in ("run", *PAGES))
    yield ".PP"
    yield roff(f"On the screen: {names}")


def _man_page(topic: Topic, title: str) -> Iterator[str]:
    yield f".SH {title}"
    yield roff(topic.text)
    for left, right in topic.rows:
        yield from _tagged(f"\\fB{roff(left)}\\fP", right)
    if topic.end:
        yield ".PP"
        yield roff(_one_line(topic.end))


def _names(option: Option) -> str:
    names = ", ".join(f"\\fB{roff(name)}\\fP" for name in option.names)
    return names + (f" \\fI{roff(option.metavar)}\\fP" if option.metavar else "")


def _tagged(tag: str, text: str) -> Iterator[str]:
    yield ".TP"
    yield tag
    yield roff(text)


def roff(text: str) -> str:
    """Plain text as roff takes it: nothing in it is a request, a hyphen can be pasted, what stands in backticks is bold."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fP", text)
    text = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    MAN.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
    MAN.write_text(man())
