"""torchrun's error file: what `torch.distributed.elastic`'s `@record` leaves when a rank raises.

The format, as torch 2.13 writes it: `{"message": {"message": …, "extraInfo": {"py_callstack": …, "timestamp": "s"}}}`,
or `{"message": "text"}`. Its clock has whole seconds, so it is never used to order failures.
"""

import json
from collections.abc import Callable

from rankguard.model import ExceptionInfo, Report

_LARGEST = 1 << 20


def read_error_file(path: str | None, redact: Callable[[str], str]) -> Report | None:
    """The failure in the file, None when there is none that can be understood."""
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            data = json.loads(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    message = data.get("message") if isinstance(data, dict) else None
    if isinstance(message, str):
        return Report("exception", redact(message)) if message else None
    if not isinstance(message, dict):
        return None
    extra = message.get("extraInfo")
    stack = extra.get("py_callstack") if isinstance(extra, dict) else None
    text = redact(str(message.get("message", "")))
    kind, _, said = text.partition(": ")
    if not kind.replace(".", "").replace("_", "").isalnum():
        kind, said = "Exception", text
    traceback = redact(stack)[-(16 << 10) :] if isinstance(stack, str) else None
    return Report("exception", text, ExceptionInfo(kind, said, traceback=traceback))
