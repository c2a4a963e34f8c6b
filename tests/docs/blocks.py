"""The code in the pages: which blocks there are, what each is, and whether it means what it says. Nothing is run here.

A block is fenced and names its language. `<!-- no-run: REASON -->` in the line before it says why it is not run; it is
read all the same: Python is compiled, shell is parsed, JSON, YAML and TOML are loaded, and every command line of ours is
given to our own parser. Read next: `test_blocks.py` (that), `played.py` (how the others are run).
"""

import ast
import configparser
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rankguard.cli.arguments import HelpAsked
from rankguard.cli.arguments import parse as parse_run
from rankguard.cli.options import OPTIONS, WATCH_OPTIONS
from rankguard.cli.verbs import HIDDEN, VERBS, common
from rankguard.cli.verbs import parse as parse_verb
from rankguard.errors import UsageError

ROOT = Path(__file__).parents[2]
PLACES = ("*.md", "docs/**/*.md", "bench/results/*.md", "deploy/**/*.md", "examples/**/*.md")
RUN = ("python", "console")
"""Languages that are run."""
SHOWN = ("text", "mermaid")
"""Languages in which nothing can be wrong but the words."""

FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
NO_RUN = re.compile(r"<!-- no-run: (.+) -->\s*\Z")
PROMPT = re.compile(r"^(?:[\w-]+)?\$ (.*)")
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
OPTION = re.compile(r"(?<![\w-])(--[a-z][\w-]*\w)")


class Block(NamedTuple):
    """One block of a page."""

    page: str
    line: int
    language: str
    text: str
    no_run: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    return sorted({path for place in PLACES for path in ROOT.glob(place)})


def blocks() -> Iterator[Block]:
    for path in pages():
        text = path.read_text()
        for found in FENCE.finditer(text):
            why = NO_RUN.search(text[: found.start()])
            body = "\n".join(line.removeprefix(found[1]) for line in found[3].splitlines())
            line = text.count("\n", 0, found.start()) + 1
            yield Block(path.relative_to(ROOT).as_posix(), line, found[2], body, why[1] if why else None)


def prose(path: Path) -> str:
    """A page without its blocks."""
    return FENCE.sub("", path.read_text())


def commands(block: Block) -> list[str]:
    """The command lines of a console, continued ones whole, without prompts and without what was answered."""
    if block.language != "console":
        return [line for line in block.text.splitlines() if line.strip() and not line.startswith("#")]
    told: list[str] = []
    for line in block.text.splitlines():
        if prompt := PROMPT.match(line):
            told.append(prompt[1])
        elif told and told[-1].endswith("\\"):
            told[-1] = f"{told[-1]}\n{line.removeprefix('> ')}"
    return told


def wrong(block: Block) -> str | None:
    """What a reader who takes the block at its word would meet; None when it can be read. Shell apart: `bash -n` reads it."""
    try:
        _read(block)
    except (ValueError, SyntaxError, UsageError, configparser.Error) as error:
        return f"{block}: {error}"
    return None


def _read(block: Block) -> None:
    match block.language:
        case "python":
            text = block.text
            if block.no_run:  # it may be a part of a function
                text = "async def part():\n" + "".join(f"    {line}\n" for line in text.splitlines())
            compile(text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        case "json":
            json.loads(block.text)
        case "toml":
            tomllib.loads(block.text)
        case "ini":
            _unit(block.text)
        case "dockerfile":
            words = {line.split()[0] for line in block.text.splitlines() if line.strip() and line[0] not in "# \t"}
            if not words <= DOCKERFILE:
                raise ValueError(f"{sorted(words - DOCKERFILE)} are no instructions")
        case "console":
            if not commands(block):
                raise ValueError("a console without a command: begin it with `$ `, or call it `text`")
            for command in commands(block):
                understood(command)
        case "sh" | "bash":
            understood(block.text)
        case "yaml" | "c":
            pass
        case other if other in SHOWN:
            pass
        case other:
            raise ValueError(
                f"`{other}`: expected a language that is read here" if other else "a block without a language"
            )


DOCKERFILE = {"FROM", "RUN", "ENTRYPOINT", "CMD", "COPY", "ENV", "WORKDIR", "ARG", "USER", "EXPOSE", "HEALTHCHECK"}


def _unit(text: str) -> None:
    """An environment file or a unit of systemd; a job's COMMAND is one of ours."""
    for line in text.splitlines():
        if line.startswith("COMMAND="):
            understood(f"rankguard {line.partition('=')[2]}")
    configparser.ConfigParser(strict=False).read_string(text if text.lstrip().startswith("[") else f"[file]\n{text}")


def understood(command: str) -> None:
    """Every call of ours in a command line has a meaning, and every make target is one. Raises `UsageError`."""
    for words in simple(command):
        if words[0] == "make":
            unknown = {word for word in words[1:] if "=" not in word and word[0] not in "-."} - TARGETS
            if unknown:
                raise UsageError(f"`{' '.join(words)}`: there is no target {sorted(unknown)}")
        for at, word in enumerate(words):
            if word == "rankguard" and at + 1 < len(words) and (words[at + 1] in VERBS or words[at + 1][0] == "-"):
                ours(words[at + 1 :])
                break
        for word in words[1:]:
            if "rankguard " in word and " " in word:  # a command in quotes, as for ssh
                understood(word)


def ours(words: list[str]) -> None:
    """Raises `UsageError` for words that `rankguard` would refuse."""
    verb, *rest = words
    if verb.startswith("-"):
        if verb not in ("--version", "--help", "-h", "--no-color"):
            raise UsageError(f"`{verb}` is no option without a verb")
        return
    try:
        if verb == "run":
            parse_run(rest, {})
        else:
            parse_verb(verb, rest)
    except HelpAsked:
        pass


def simple(command: str) -> Iterator[list[str]]:
    """The simple commands of a script, as words, without redirections; expansions stay as they are."""
    for line in command.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()<>")
        lexer.whitespace_split = True
        words: list[str] = []
        into = False
        for word in lexer:
            if set(word) <= set("<>"):
                into = True
            elif into:
                into = False
            elif set(word) <= set(";&|()"):
                if words:
                    yield words
                words = []
            else:
                words.append(word)
        if words:
            yield words


TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))

# ── Options in running text ──────────────────────────────────────────────────────────────────────────────────────

OF_OTHERS = {
    "--api-key": "a program's own, in secrets.md",
    "--at": "python -m rankguard.testing.faults",
    "--folder": "python -m rankguard.testing.faults",
    "--from": "COPY in a Dockerfile; bench",
    "--grow-most": "examples/ddp.py",
    "--graceful-termination-timeout": "text-generation-inference",
    "--headless": "vllm",
    "--host-cache-gb": "examples/embedding_engine",
    "--local-rank": "what torch.distributed.launch gave a program",
    "--lr": "a program's own",
    "--native": "py-spy",
    "--no-deps": "pip",
    "--print-completion": "torchrun, which has it and we do not",
    "--process": "jax's example",
    "--tensor-parallel-size": "vllm",
}


def _names() -> dict[str, set[str]]:
    """The long options of each verb."""
    told = {verb: {n for o in (*row.options, *common(verb)) for n in o.names} for verb, row in (VERBS | HIDDEN).items()}
    told["run"] |= {name for option in OPTIONS for name in option.names}
    told["watch"] |= {name for option in WATCH_OPTIONS for name in option.names}
    return told


NAMES = _names()
ALL_NAMES = set().union(*NAMES.values())


def stale(path: Path) -> Iterator[str]:
    """Options in the running text of a page that nobody has."""
    for span in SPAN.findall(prose(path)):
        words = span.split()
        verb = words[1] if len(words) > 1 and words[0] == "rankguard" and words[1] in VERBS else None
        if not verb and not words[0].startswith("--"):
            continue  # another program's
        among = NAMES[verb] if verb else ALL_NAMES | set(OF_OTHERS)
        for word in words:
            if verb and (word in ("--", "PROGRAM") or word.endswith(".py")):
                break  # what follows is the program's
            for option in [] if word.endswith("-…") else OPTION.findall(word):
                plain = option.replace("_", "-")
                if plain not in among and sum(name.startswith(plain) for name in among) != 1:  # it may be abbreviated
                    yield f"{path.relative_to(ROOT)}: `{span}`: {option}"
