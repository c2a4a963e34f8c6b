"""Secrets that exist in one test only, and the search for them, or for any piece of them, in what a run leaves behind."""

import contextlib
import json
import os
import random
import shlex
import string
from pathlib import Path

PIECE = 10
"""So many characters in a row of a secret are too many."""
_LETTERS = string.ascii_letters + string.digits


def secret(mark: str, odd: str = "", length: int = 24) -> str:
    """A new one; `odd`: characters that JSON, Python, a shell or a URL write otherwise, spread over it."""
    body = [mark, *random.choices(_LETTERS, k=length)]
    for n, char in enumerate(odd):
        body.insert(4 + n * 5, char)
    return "".join(body)


class Canaries:
    """The secrets of one job: where each is put, and the command line and environment that hold them."""

    def __init__(self) -> None:
        self.argument = secret("A1")
        self.assigned = secret("A2")
        self.word = secret("A3")
        self.url = secret("A4")
        self.header = secret("A5")
        self.in_json = secret("A6")
        self.variable = secret("E1")
        self.odd = secret("E2", "'\"\\ ü$")
        self.in_url = secret("E3", "@/")
        self.key = "\n".join(["-----BEGIN PRIVATE KEY-----", secret("E4", length=60), secret("E5", length=60),
                              "-----END PRIVATE KEY-----"])  # fmt: skip
        self.matched = "proj-" + "".join(random.choices(string.digits, k=14))
        self.label = secret("L1")
        self.plain = "plain-" + secret("P1")
        """No secret: it has to be seen, or the search would find nothing anyway."""

    def all(self) -> dict[str, str]:
        """Name → text that must not be seen."""
        found = {name: value for name, value in vars(self).items() if name not in ("plain", "key")}
        return found | {f"key-{n}": line for n, line in enumerate(self.key.splitlines()[1:-1])}

    def options(self) -> list[str]:
        return ["--redact", "proj-[0-9]+", "--label", f"api_token={self.label}", "--label", "team=blue"]

    def arguments(self) -> list[str]:
        return [
            "--api-key", self.argument, f"--auth-token={self.assigned}", f"HF_TOKEN={self.word}",
            f"https://user:{self.url}@host/path", "-H", f"Authorization: Bearer {self.header}",
            "--config", json.dumps({"db": {"password": self.in_json}}), "--project", self.matched, self.variable,
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        return {
            "WANDB_API_KEY": self.variable,
            "DB_PASSWORD": self.odd,
            "DATABASE_URL": f"postgres://user:{self.in_url}@db:5432/x",
            "SSH_PRIVATE_KEY": self.key,
            "PLAIN": self.plain,
        }

    def every_spelling(self) -> str:
        """All of them, as programs print them: bare, as JSON, as Python, quoted for a shell; a line each."""
        lines = []
        for value in [*self.all().values(), self.key]:
            lines += [f"the value is {value}", json.dumps({"x": value}), json.dumps(json.dumps([value])), repr(value),
                      ascii(value), shlex.quote(value), f"{value}{value}"]  # fmt: skip
        return "\n".join([*lines, f"nothing to hide: {self.plain}"])


def found_in(canaries: Canaries, text: str) -> list[str]:
    """The secrets of which at least a piece is in a text."""
    hit = []
    for name, value in canaries.all().items():
        pieces = {value[at : at + PIECE] for at in range(len(value) - PIECE + 1)}
        pieces |= {json.dumps(value)[1:-1][at : at + PIECE] for at in range(len(value) - PIECE + 1)}
        if any(piece in text for piece in pieces):
            hit.append(name)
    return hit


def artefacts(folder: Path) -> dict[str, str]:
    """The files of a run but for the ranks' own logs (and the copies of their lines that were asked for)."""
    found = {}
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if path.is_file() and not inside.parts[0].startswith(("rank-", "filtered_")):
            with contextlib.suppress(FileNotFoundError):  # a live run's `.new` has its own name by now
                found[str(inside)] = path.read_text(errors="replace")
    return found


def own_logs(folder: Path) -> str:
    """What the ranks printed."""
    return "".join(path.read_text(errors="replace") for path in sorted(folder.glob("rank-*/*/*.log")))


def command_lines(of: int) -> dict[int, str]:
    """pid → command line of the process and everything below it."""
    found: dict[int, str] = {}
    queue = [of]
    while queue:
        pid = queue.pop()
        try:
            found[pid] = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
            for thread in os.listdir(f"/proc/{pid}/task"):
                queue += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
        except OSError:
            continue
    return found
