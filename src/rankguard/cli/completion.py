"""`rankguard completion bash|zsh|fish`: a script for the shell, made from the tables of verbs and options."""

from collections.abc import Sequence

from rankguard.cli.verbs import parse
from rankguard.errors import UsageError

SHELLS: dict[str, object] = {}


def completion(words: Sequence[str]) -> int:
    """Print the script."""
    asked = parse("completion", words)
    if asked is None:
        return 0
    raise UsageError(f"there is no completion for `{asked.shell}`", f"rankguard completion {'|'.join(SHELLS)}")
