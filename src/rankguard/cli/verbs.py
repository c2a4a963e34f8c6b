"""Every verb, in one table: what it does, where it is, what it takes. The parser, the help, the shell completion, the man
page and `docs/command-line.md` are views of it, as they are of `options.py` (the options of `run`).

To add a verb: a row here, a function `name(words) -> exit status` in its module, which calls `parse(name, words)`.
"""

from collections.abc import Sequence
from types import SimpleNamespace

from rankguard.cli import values
from rankguard.cli.options import OPTIONS, WATCH_OPTIONS, Option
from rankguard.errors import UsageError
from rankguard.record import Record


class Operand(Record):
    """A word that is no option. `kind`: what the shell completes, `run`, `drill`, `topic`, `shell` or `file`."""

    name: str
    help: str
    kind: str = "file"
    required: bool = False
    rest: bool = False
    """It is all the words that are left, whatever they look like."""


class Verb(Record):
    """One verb. `function` is in `module`. `usage`: what follows its name. `about`: what the summary leaves out."""

    name: str
    summary: str
    module: str
    usage: str = ""
    operands: tuple[Operand, ...] = ()
    options: tuple[Option, ...] = ()
    about: str = ""

    @property
    def function(self) -> str:
        return self.name.replace("-", "_")


_RUN = Operand("RUN", "its id, the beginning of one, or its folder (the newest run)", "run")


def _option(verb: str, names: str, text: str, metavar: str | None = None, **more: object) -> Option:
    return Option(tuple(names.split()), verb, text, metavar, **more)  # type: ignore[arg-type]  # fields of Option


VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            "run", "launch N ranks of a program", "rankguard.cli.run", "[OPTIONS] PROGRAM [ARGS]...",
            operands=(Operand("PROGRAM", "what every rank runs; the words behind it are its own"),), options=OPTIONS,
        ),
        Verb(
            "watch", "watch every process of one engine, unchanged", "rankguard.cli.watch",
            "[OPTIONS] -- COMMAND... | --pid PID | --match REGEX",
            operands=(Operand("COMMAND", "the engine, with its words", "command", rest=True),), options=WATCH_OPTIONS,
        ),
        Verb(
            "runs", "list past runs, the newest first, or remove old ones", "rankguard.cli.runs",
            "[-n N] [--json] [--in DIR] [--prune --older-than AGE]",
            options=(
                _option("runs", "-n --number", "how many (20; 0: all)", "N", default=20, parse=values.count),
                _option("runs", "--json", "as JSON"),
                _option("runs", "--in", "the runs in this folder (--log-dir, or DIR/earlier of --run-dir)", "DIR"),
                _option("runs", "--prune", "remove runs that are over; never one that lives, never a file of others"),
                _option("runs", "--older-than", "of --prune: what is older, such as 7d, 12h, 30m", "AGE",
                        parse=values.age),
                _option("runs", "--keep", "of --prune: never the N newest", "N", parse=values.count),
                _option("runs", "--dry-run", "of --prune: say what would be removed"),
            ),
        ),
        Verb(
            "report", "the final report of a run again", "rankguard.cli.report", "[--json | --html FILE] [RUN]",
            operands=(_RUN,),
            options=(
                _option("report", "--json", "the verdict as JSON"),
                _option("report", "--html", "one page for a browser, with all that is known; `-`: to stdout", "FILE"),
            ),
        ),
        Verb(
            "explain", "the story of a run: each decision with the fact that caused it", "rankguard.cli.explain",
            "[--all] [--json] [RUN] | --rules", operands=(_RUN,),
            options=(
                _option("explain", "--all", "every fact and order as it stands in the journal"),
                _option("explain", "--json", "the story as JSON: seconds since launch, what, then what"),
                _option("explain", "--rules", "the rules by which `watch` tells what may not end"),
            ),
        ),
        Verb(
            "stacks", "what every rank of a live run is doing right now", "rankguard.cli.stacks",
            "[--rank N] [--json] [RUN]", operands=(_RUN,),
            options=(
                _option("stacks", "--rank", "of this rank only", "N", parse=values.count),
                _option("stacks", "--json", "every thread and call as JSON"),
            ),
            about="The run goes on. SIGQUIT (Ctrl-\\) to a running `rankguard run` shows the same.",
        ),
        Verb(
            "drill", "make a real failure happen here, and check the verdict", "rankguard.cli.drill",
            "[-n RANKS] [NAME]", operands=(Operand("NAME", "which one, or `all` (none lists them)", "drill"),),
            options=(_option("drill", "-n --ranks", "how many ranks (its own)", "RANKS", parse=values.count),),
        ),
        Verb(
            "doctor", "what this machine allows, what each missing thing costs, how to get it", "rankguard.cli.doctor",
            "[--for k8s] [--json] [--clean] [-n RANKS]",
            options=(
                _option("doctor", "--json", "every check as JSON, on stdout"),
                _option("doctor", "--for", "what a pod lacks, and the YAML that gives it: `k8s`", "WHERE", choices=("k8s",)),
                _option("doctor", "--clean", "remove what killed runs of ours have left, where that is certain"),
                _option("doctor", "-n --ranks", "the world size that limits are compared with (one rank a CPU)", "RANKS",
                        parse=values.count),
            ),
        ),
        Verb(
            "completion", "print the completion script of a shell", "rankguard.cli.completion", "bash|zsh|fish",
            operands=(Operand("SHELL", "bash, zsh or fish", "shell", required=True),),
        ),
        Verb(
            "help", "help for a verb, `exit-status`, `environment` or `signals`", "rankguard.cli.help", "[TOPIC]",
            operands=(Operand("TOPIC", "a verb or a topic", "topic"),),
        ),
    )
}  # fmt: skip
"""In the order in which the help lists them."""


HIDDEN = {"agent": Verb("agent", "one node's part of a job", "rankguard.cli.agent")}
"""What rankguard starts itself: in no help, completion or page."""


def common(verb: str) -> tuple[Option, ...]:
    """Options of every verb, less those that it has among its own."""
    of_all = (_option(verb, "-h --help", "this help"), _option(verb, "--no-color", "no colours"))
    own = {option.name for option in (VERBS | HIDDEN)[verb].options}
    return tuple(option for option in of_all if option.name not in own)


def parse(verb: str, words: Sequence[str]) -> SimpleNamespace | None:
    """The options and operands by their names in lower case, absent ones with their default; None: help was asked for,
    and has been given. Raises `UsageError`.
    """
    from rankguard.cli.arguments import options_in, set_option

    row = VERBS[verb]
    among = (*row.options, *common(verb))
    asked = SimpleNamespace(**{option.field: option.default for option in row.options}, given=set(), help=False)
    for option in row.options:
        if option.metavar is None:
            setattr(asked, option.field, False)
    left, operands, only_operands = list(words), list[str](), False
    while left:
        if operands and row.operands[-1].rest:
            operands += left
            break
        word = left.pop(0)
        if only_operands or not word.startswith("-") or word == "-":
            operands.append(word)
        elif word == "--":
            only_operands = True
        else:
            for option, value in options_in(word, left, among):
                set_option(asked, option, value, word)
    if asked.help:
        from rankguard.cli.help import verb_help

        verb_help(verb)
        return None
    if "no_color" in asked.given:
        from rankguard.cli import say

        say.without_color()
    _set_operands(row, operands, asked)
    return asked


def _set_operands(row: Verb, words: Sequence[str], asked: SimpleNamespace) -> None:
    for n, operand in enumerate(row.operands):
        if operand.required and n >= len(words):
            raise UsageError(f"no {operand.name} is given", f"rankguard {row.name} {row.usage}")
        alone = words[n] if n < len(words) else None
        setattr(asked, operand.name.lower(), tuple(words[n:]) if operand.rest else alone)
    if len(words) > len(row.operands) and not any(operand.rest for operand in row.operands):
        expected = f"one {row.operands[0].name}" if row.operands else "options only"
        raise UsageError(f"`{' '.join(words)}`: expected {expected}", usage_of(row))


def usage_of(row: Verb) -> str:
    """`rankguard runs [-n N]`."""
    return f"rankguard {row.name} {row.usage}".rstrip()
