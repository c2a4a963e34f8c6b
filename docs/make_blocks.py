# ruff: noqa: INP001  # a script, not a package
"""Makes docs/blocks.md: which blocks of code the pages hold, and what is done with each: `python docs/make_blocks.py`. A test
holds the page to the pages.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.docs.blocks import RUN, SHOWN, Block, blocks, commands  # noqa: E402  # the path comes first
from tests.docs.played import play_of  # noqa: E402

PAGE = ROOT / "docs" / "blocks.md"
SIGNATURE = "a signature"

HEAD = """# The code in these pages

Made by `docs/make_blocks.py`; do not edit it by hand.

Every block of code in the pages is run by a test, or read by one. **Run** (`tests/docs/test_played.py`, in `make test-slow`): Python as a program of its own, each command of a console by a shell, in a folder that has what the pages speak of; engines, `srun`, `torchrun` and `mail` are stand-ins on PATH, ports and pids those of the machine, rankguard is the real one, and what is started is ended as a user would and has to end with the right status. **Read** (`tests/docs/test_blocks.py`, in `make test`): Python is compiled, shell parsed, JSON, YAML and TOML loaded, and every command line of ours given to our own parser; options in running text have to exist, too. **Shown**: what something prints.

A block that is only read has a comment before it that says why: `<!-- no-run: needs a cluster -->`.
"""


def page() -> str:
    """The whole page."""
    return "\n".join(_page()).rstrip() + "\n"


def _page() -> Iterator[str]:
    found = [block for block in blocks() if block.page != "docs/blocks.md"]
    yield HEAD
    yield "| page | run | read | shown |\n|---|--:|--:|--:|"
    for name in dict.fromkeys(block.page for block in found):
        kinds = [_kind(block) for block in found if block.page == name]
        yield f"| {name} | {' | '.join(str(kinds.count(kind) or '') for kind in KINDS)} |"
    kinds = [_kind(block) for block in found]
    yield f"| **{len(found)} in all** | {' | '.join(f'**{kinds.count(kind)}**' for kind in KINDS)} |\n"
    yield "## Read only, and why\n"
    yield f"Besides {sum(block.no_run == SIGNATURE for block in found)} signatures in [the reference](api.md), and data in JSON, YAML and the like:\n"
    yield "| where | what | why |\n|---|---|---|"
    for block in found:
        if block.language in RUN and block.no_run != SIGNATURE:
            yield from _rows(block)


KINDS = ("run", "read", "shown")


def _kind(block: Block) -> str:
    if block.language in SHOWN:
        return "shown"
    if block.language not in RUN or block.no_run is not None:
        return "read"
    alone = block.language == "console" and all(play_of(command).only for command in commands(block))
    return "read" if alone else "run"


def counted() -> str:
    """`140 blocks: 32 are run, 76 read, 32 shown`."""
    kinds = [_kind(block) for block in blocks() if block.page != "docs/blocks.md"]
    return (
        f"{len(kinds)} blocks: {kinds.count('run')} are run, {kinds.count('read')} read, {kinds.count('shown')} shown"
    )


def _rows(block: Block) -> Iterator[str]:
    told = commands(block) if block.language == "console" else block.text.splitlines()[:1]
    for command in told[:1] if block.no_run else told:
        why = block.no_run or (play_of(command).only if block.language == "console" else "")
        if why:
            what = command.splitlines()[0].partition("  #")[0].strip().replace("|", r"\|")
            yield f"| {block.page} | `{what}`{' …' if block.no_run and len(told) > 1 else ''} | {why} |"


if __name__ == "__main__":
    PAGE.write_text(page())
