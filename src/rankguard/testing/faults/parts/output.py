"""What a rank says last, and how much."""

import os
from typing import NoReturn

from rankguard.testing.faults.actor import Actor

LAST_WORDS = "loading shard 7 of 8: 99 %"
MUCH = 100 << 20


def no_newline(_actor: Actor) -> NoReturn:
    """Ends in the middle of a line."""
    os.write(1, LAST_WORDS.encode())
    os._exit(3)


def hundred_megabytes(_actor: Actor) -> NoReturn:
    """Says 100 MB, then its last words."""
    line = b"step 1200: loss 2.7182818284, 41 tokens per second, all is as it has been for some time now\n"
    block = line * ((1 << 20) // len(line))
    said = 0
    while said < MUCH:
        said += os.write(1, block)
    os.write(1, b"\n" + LAST_WORDS.encode() + b"\n")
    os._exit(3)


def binary(_actor: Actor) -> NoReturn:
    """Bytes that are no text, terminal commands among them, then its last words."""
    os.write(2, bytes(range(256)) * 16 + b"\x1b[2J\x1b]0;owned\x07\r\n" + LAST_WORDS.encode() + b"\n")
    os._exit(3)
