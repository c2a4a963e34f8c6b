"""`--help` and `rankguard help`: an overview, a screen of 24 lines of 80 columns for each topic, or everything at once.

Made from `options.py`, `verbs.py` and `topics.py`; it says nothing of its own but the overview.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rankguard.cli.options import BY_FIELD, OF_NODES, OPTIONS, SHARED, TOPICS, Option
from rankguard.cli.topics import PAGES, Topic
from rankguard.cli.verbs import VERBS, Verb, common, parse, usage_of
from rankguard.errors import UsageError

WIDTH = 80
NAMES = 28
"""Room for the left column; longer names have a line of their own."""

_MOST_USED = ("nproc_per_node", "module", "ready_timeout", "debug", "log_dir", "report")


def help(words: Sequence[str]) -> int:  # noqa: A001  # the verb's name
    """`rankguard help [TOPIC]`."""
    if list(words[:1]) == ["run"] and len(words) == 2:
        return run_help(words[1])
    asked = parse("help", words)
    if asked is None:
        return 0
    topic = asked.topic
    if topic is None:
        print(overview())
    elif topic in PAGES:
        print(page(PAGES[topic]))
    elif topic in VERBS:
        verb_help(topic)
    elif topic in TOPICS or topic == "all":
        return run_help(topic)
    else:
        raise _no_topic(topic, (*VERBS, *PAGES, *TOPICS), "rankguard help")
    return 0


def run_help(topic: str | None) -> int:
    """`rankguard run --help [TOPIC]`. Raises `UsageError`."""
    if topic is None or topic.startswith("-"):
        print(run_overview())
    elif topic == "all":
        print(everything())
    elif topic in TOPICS:
        print(run_topic(topic))
    else:
        raise _no_topic(topic, (*TOPICS, "all"), "rankguard run --help")
    return 0


def verb_help(verb: str) -> None:
    """`rankguard VERB --help`."""
    print(run_overview() if verb == "run" else of_verb(VERBS[verb]))


def _no_topic(topic: str, known: Sequence[str], command: str) -> UsageError:
    from difflib import get_close_matches

    near = get_close_matches(topic, known, 1, 0.5)
    return UsageError(f"there is no help topic `{topic}`", f"{command} {near[0]}" if near else "rankguard help")


# ── Pages ────────────────────────────────────────────────────────────────────────────────────────────────────────


def overview() -> str:
    """`rankguard --help`."""
    return "\n".join([
        "rankguard: launch the ranks of a distributed job, and know which failed first,",
        "and why",
        "",
        "usage: rankguard VERB [OPTIONS] [WORDS]",
        "",
        *rows((verb.name, verb.summary) for verb in VERBS.values()),
        "",
        "begin:  rankguard run -n 2 train.py",
        "more:   rankguard VERB --help",
        *_pages(),
    ])  # fmt: skip


def run_overview() -> str:
    """`rankguard run --help`."""
    return "\n".join([
        "rankguard run: launch N ranks of a program; say which one failed first, and why",
        "",
        f"usage: {usage_of(VERBS['run'])}",
        "",
        "PROGRAM is a Python file, with -m a module, or an executable; all behind it is",
        "its own. Options are torchrun's, abbreviations and PET_* included, and ours.",
        "",
        *rows(map(option_row, (BY_FIELD[field] for field in _MOST_USED))),
        "",
        *_pages("more:"),
        "        rankguard run --help TOPIC",
        *rows([*TOPICS.items(), ("all", "every option, and what follows")]),
    ])  # fmt: skip


def _pages(label: str = "") -> list[str]:
    return [f"{label:8}rankguard help {'|'.join(PAGES)}"]


def run_topic(topic: str) -> str:
    """`rankguard run --help TOPIC`."""
    return "\n".join([f"{topic}: {TOPICS[topic]}", "", *option_rows(o for o in OPTIONS if o.topic == topic)])


def page(topic: Topic) -> str:
    """`rankguard help TOPIC`."""
    return "\n".join([topic.text, "", *rows(topic.rows), *(["", topic.end] if topic.end else [])])


def of_verb(verb: Verb) -> str:
    """`rankguard VERB --help`, of any verb but `run`."""
    operands = [(operand.name, operand.help) for operand in verb.operands]
    shared = [option for option in verb.options if option in SHARED]
    nodes = [option for option in verb.options if option in OF_NODES]
    own = [option for option in verb.options if option not in shared and option not in nodes]
    told = [*(operands), *map(option_row, (*own, *(() if shared else common(verb.name))))]
    told += [("several machines", " ".join(option.name for option in nodes))] if nodes else []
    told += [("as of `run`", " ".join(option.names[-1] for option in shared))] if shared else []
    about = ["", *textwrap.wrap(verb.about, WIDTH)] if verb.about else []
    head = textwrap.wrap(f"rankguard {verb.name}: {verb.summary}", WIDTH)
    return "\n".join([*head, "", f"usage: {usage_of(verb)}", *about, "", *rows(told)])


def everything() -> str:
    """`rankguard run --help all`."""
    return "\n\n".join([run_overview(), *map(run_topic, TOPICS), *map(page, PAGES.values())])


# ── Rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def option_row(option: Option) -> tuple[str, str]:
    """`-n, --nproc-per-node N` and what it means."""
    return ", ".join(option.names) + (f" {option.metavar}" if option.metavar else ""), option.help


def option_rows(options: Iterable[Option]) -> Iterator[str]:
    """Rows of options; those in a row that mean the same share one."""
    named: list[list[str]] = []
    told: list[str] = []
    for option in options:
        left, text = option_row(option)
        if told and told[-1] == text:
            named[-1].append(left)
        else:
            named.append([left])
            told.append(text)
    return rows(zip([", ".join(names) for names in named], told, strict=True))


def rows(cells: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Two columns; the right one is wrapped under itself, a left cell that is too long has a line of its own."""
    pairs = list(cells)
    fitting = [len(left) for left, _ in pairs if len(left) <= NAMES]
    indent = max(fitting, default=NAMES) + 4
    for left, right in pairs:
        lines = textwrap.wrap(right, WIDTH - indent, break_on_hyphens=False)
        if len(left) + 4 <= indent:
            yield f"  {left:{indent - 2}}{lines[0]}"
            lines = lines[1:]
        else:
            yield from textwrap.wrap(left, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        yield from (" " * indent + line for line in lines)
