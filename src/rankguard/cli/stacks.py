"""`rankguard stacks`: what every rank of a live run is doing right now. The run is not stopped (SIGQUIT does the same)."""

import json
from collections.abc import Sequence

from rankguard.cli.verbs import parse
from rankguard.errors import UsageError
from rankguard.runs.folder import address_of
from rankguard.runs.live import NotLive, ask

_WAIT_S = 180.0
"""512 ranks take about 15 s on 2 cores; one that cannot be read takes 10 s."""


def stacks(words: Sequence[str]) -> int:
    """Stacks of a live run."""
    asked = parse("stacks", words)
    if asked is None:
        return 0
    name, address = address_of(asked.run)
    if address is None:
        raise UsageError(f"run {name} does not run on this machine", f"rankguard report {name}")
    try:
        answer = ask(address, {"do": "stacks", "rank": asked.rank, "data": asked.json}, _WAIT_S)
    except NotLive:
        raise UsageError(f"run {name} has ended", f"rankguard report {name}") from None
    except TimeoutError as error:
        raise UsageError(f"unable to ask run {name}: {error}", f"rankguard report {name}") from None
    if answer.get("is") != "stacks":
        raise UsageError(str(answer.get("statement", "an answer without a meaning")))
    print(json.dumps(answer["stacks"], indent=1) if asked.json else answer["text"].rstrip("\n"))
    return 0
