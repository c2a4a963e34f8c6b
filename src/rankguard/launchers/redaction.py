"""A fact without secrets: what a rank says of itself ends up in every file and page."""

from collections.abc import Callable
from typing import Any


def redacted(fact: Any, redact: Callable[[str], str]) -> Any:
    """The same fact; texts and exceptions that the rank reported have gone through `redact`."""
    report = getattr(fact, "report", None)
    if report is not None:
        info = report.exception
        if info is not None:
            info = info.replace(
                message=redact(info.message),
                traceback=None if info.traceback is None else redact(info.traceback),
                chain=tuple(redact(link) for link in info.chain),
            )
        return fact.replace(report=report.replace(text=redact(report.text), exception=info))
    text = getattr(fact, "text", None)
    return fact.replace(text=redact(text)) if isinstance(text, str) else fact
