"""A question that may block, put by a program of its own (`askprogram.py`): a name that has to be looked up, TLS, a file
on another machine's disk. Nobody waits for it: its end is news, its owner's clock kills it, and it dies with us.

What is asked is in its environment, which only this user can read: a command line is everybody's.
Read next: `helper.py` (how it runs), `asking.py` (when).
"""

import json
import os
import sys
from selectors import BaseSelector

from rankguard.linux import askprogram
from rankguard.linux.asking import Answer, Done
from rankguard.linux.helper import Helper

LAST_S = 3.0
"""The longest pause between two of these questions: each costs a program of some 50 ms."""


class FarAsk:
    """One question: `{"tcp": [host, port]}`, `{"url": …, "login": …}` or `{"file": path}`, as a mapping."""

    due_at: float | None = None

    def __init__(self, asked: dict[str, object], selector: BaseSelector, priority: int, done: Done) -> None:
        """Raises `OSError` when the program cannot be started."""
        if not sys.executable:
            raise OSError(0, "no Python that could be started is known")
        self._done = done
        argv = (sys.executable, "-I", "-S", askprogram.__file__)
        env = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", askprogram.ASKED: json.dumps(asked)}
        self._helper = Helper(selector, priority, argv, env, self._on_end)

    def close(self) -> Answer:
        """Given up, or ended."""
        said = self._helper.close()
        try:
            good, heard = json.loads(said.out)
            return Answer(good is True, str(heard))
        except (ValueError, TypeError):
            wrong = said.err.decode(errors="replace").strip().splitlines()[-1:]
            return Answer(False, f"the program that asks ended: {wrong[0][:200]}" if wrong else "no answer yet")

    def _on_end(self, now: float) -> None:
        self._done(self.close(), now)
