"""The words after `rankguard run` → options, PROGRAM and its arguments. Pure: nothing is started here.

PROGRAM is found first: what stands behind it is the program's own, whatever it looks like. Options may be written with
hyphens or underscores, abbreviated as long as that is unambiguous, and torchrun's have their `PET_*` variables. A word
that looks like an option is no value: `--role=-x` says that it is meant. Of an option that comes twice the last wins.
"""

import re
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

from rankguard.cli.options import BY_FIELD, ELSEWHERE, OPTIONS, TOPICS, Option
from rankguard.errors import UsageError

ALIASES = {"--log-line-prefix": "--log-line-prefix-template"}
_NEGATIVE = re.compile(r"-\d+|-\d*\.\d+")


class HelpAsked(Exception):  # no error: the user asked
    """`--help` was among the options; `topic` is the word after it, if it is one."""

    def __init__(self, topic: str | None) -> None:
        super().__init__(topic)
        self.topic = topic


def parse(words: Sequence[str], env: Mapping[str, str]) -> SimpleNamespace:
    """The options by their fields, `program`, `args`, and `given` (the fields that the command line or a variable set).

    `written` is how each of those was given, as it is to be quoted: `--grace 5`, `PET_NNODES=1`; `texts` the value alone.
    Raises `UsageError` and `HelpAsked`.
    """
    asked = SimpleNamespace(given=set(), written={}, texts={})
    for field, option in BY_FIELD.items():
        _start_from(asked, field, option, env)
    left = list(words)
    while left and left[0].startswith("-") and left[0] != "-":
        word = left.pop(0)
        if word == "--":
            break
        if _asks_for_help(word):
            topic = word.partition("=")[2]
            raise HelpAsked(topic or (left[0] if left else None))
        for option, value in options_in(word, left):
            set_option(asked, option, value, word)
            asked.written[option.field] = option.name if value is None else f"{option.name} {value}"
            asked.texts[option.field] = value
    if not left or not left[0]:
        raise UsageError("no PROGRAM is given", "rankguard run -n 2 train.py")
    asked.program, *asked.args = left
    return asked


def options_in(word: str, left: list[str], among: Sequence[Option] = OPTIONS) -> list[tuple[Option, str | None]]:
    """What one word means: a long option, a short one with its value behind it, or short flags in a row.

    `left`: the words behind it, of which its value is taken; `among`: the options of a verb.
    """
    _elsewhere(word, among)
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        option = _in_full(name, among)
        if option.metavar is None:
            if equals:
                raise UsageError(f"`{word}`: expected no value", option.name)
            return [(option, None)]
        return [(option, value if equals else _next(option, word, left))]
    found: list[tuple[Option, str | None]] = []
    rest = word[1:]
    while rest:
        option = _short(f"-{rest[0]}", among)
        rest = rest[1:]
        if option.metavar is None:
            found.append((option, None))
            continue
        found.append((option, rest.removeprefix("=") if rest else _next(option, word, left)))
        break
    return found


def _next(option: Option, word: str, left: list[str]) -> str:
    if not left:
        raise UsageError(f"`{word}`: expected a value", f"{word} {option.metavar}")
    if _looks_like_an_option(left[0]):
        raise UsageError(
            f"`{word}`: expected a value, not the option `{left[0]}`",
            f"{word} {option.metavar}, or {option.name}={left[0]} if that is meant",
        )
    return left.pop(0)


def _looks_like_an_option(word: str) -> bool:
    """As argparse has it: `-`, a negative number and what has a space in it are values."""
    return word.startswith("-") and len(word) > 1 and " " not in word and not _NEGATIVE.fullmatch(word)


def _asks_for_help(word: str) -> bool:
    name = word.partition("=")[0]
    if len(name) > 2 and "--help".startswith(name):
        return not any(option.name.startswith(name) for option in OPTIONS)
    return word == "-h"


def help_of(option: Option) -> str:
    """The command that tells more of an option."""
    return f"rankguard run --help {option.topic}" if option.topic in TOPICS else f"rankguard {option.topic} --help"


def one_of(words: Sequence[str]) -> str:
    """`text, json or none`."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _short(name: str, among: Sequence[Option]) -> Option:
    for option in among:
        if name in option.names:
            return option
    raise UsageError(f"there is no option `{name}`", _all_help(among))


def _elsewhere(written: str, among: Sequence[Option]) -> None:
    """Raises `UsageError` for an option of torchrun's relatives."""
    name = written.partition("=")[0].replace("_", "-")
    if among is OPTIONS and name in ELSEWHERE:
        reason, hint = ELSEWHERE[name]
        raise UsageError(f"`{written}` {reason}", hint)


def _all_help(among: Sequence[Option]) -> str:
    return "rankguard run --help" if among is OPTIONS else help_of(among[0])


def _in_full(written: str, among: Sequence[Option]) -> Option:
    """The option that a name or its abbreviation means. Raises `UsageError` with a suggestion."""
    name = written.replace("_", "-")
    name = ALIASES.get(name, name)
    found = [option for option in among if option.name.startswith(name)]
    exact = [option for option in found if option.name == name]
    theirs = [option for option in found if option.torchrun is not None and option.since is None]
    for unique in (exact, found, theirs):  # our own options take no abbreviation away that torchrun knows
        if len(unique) == 1:
            return unique[0]
    if found:
        raise UsageError(f"`{written}` is the beginning of {len(found)} options", " or ".join(o.name for o in found))
    near = max((o.name for o in among), key=lambda full: _likeness(name, full))
    suggestion = near if _likeness(name, near) > 0.7 else _all_help(among)
    raise UsageError(f"there is no option `{written}`", suggestion)


def _likeness(written: str, full: str) -> float:
    """Of a name to an option; a typo in an abbreviation is compared with the option's beginning."""
    from difflib import SequenceMatcher

    whole, beginning = (SequenceMatcher(None, written, name).ratio() for name in (full, full[: len(written) + 1]))
    words = {word.rstrip("s") for word in full.strip("-").split("-")}
    part = 0.94 if written.strip("-").rstrip("s") in words else 0.0  # `--restart` for `--max-restarts`
    return max(whole, 0.95 * beginning, part)


def _start_from(asked: SimpleNamespace, field: str, option: Option, env: Mapping[str, str]) -> None:
    """Torchrun's `PET_<NAME>` where it is set, or the option's own default."""
    variable = f"PET_{field.upper()}"
    text = env.get(variable) if option.pet else None
    if text is None:
        default = option.default if option.metavar is not None else False
        setattr(asked, field, option.parse(default) if isinstance(default, str) else default)
        return
    if option.metavar is None:
        if text.strip() not in ("", "0", "1"):
            raise UsageError(f"`{variable}={text}`: expected 0 or 1", f"unset {variable}")
        setattr(asked, field, text.strip() == "1")
        if text.strip() != "1":
            return
    else:
        setattr(asked, field, _value(option, text, variable))
    asked.given.add(field)
    asked.written[field], asked.texts[field] = f"{variable}={text}", text


def set_option(asked: SimpleNamespace, option: Option, text: str | None, word: str) -> None:
    """`word`: as it was typed, which may be a short name; an abbreviation is told in full."""
    short = next((name for name in option.names if not name.startswith("--") and word.startswith(name)), None)
    value = True if text is None else _value(option, text, short if short and word[:2] != "--" else option.name)
    if option.repeats:
        value = (*getattr(asked, option.field), value)
    setattr(asked, option.field, value)
    asked.given.add(option.field)


def _value(option: Option, text: str, written: str) -> object:
    between = "=" if written.startswith("PET_") else " "
    if option.choices and text not in option.choices:
        from difflib import get_close_matches

        near = get_close_matches(text, option.choices, 1)
        hint = f"{written}{between}{near[0]}" if near else help_of(option)
        raise UsageError(f"`{written}{between}{text}`: expected {one_of(option.choices)}", hint)
    try:
        return option.parse(text)
    except ValueError as error:
        from rankguard.report.redact import Redactor  # no start waits for it

        raise UsageError(f"`{written}{between}{Redactor().text(text)}`: expected {error}", help_of(option)) from None
