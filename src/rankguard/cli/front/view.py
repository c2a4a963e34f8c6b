"""The live view of a start: when there is one, what it shows, when it goes. On a terminal, below the ranks' own lines.

Three forms. While readiness is expected: a table, until all are ready. While nobody is expected to be ready and ranks say
how far they are: the same, until they have been silent for `SPOKEN_S`. Of ranks that say nothing, as most programs that
were written for torchrun: one line that goes with the first output, or after `LINE_S`.

The front asks for a glimpse, draws it (`frame.py`) and sends the lines to the supervisor, the terminal's only writer
(`../../report/screen.py`). While there is no view nothing is asked. Elsewhere `progress.py` has its lines.
"""

import importlib.util
import os
import stat
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from rankguard.cli.say import in_color
from rankguard.jobspec import JobSpec
from rankguard.linux.modes import in_background

if TYPE_CHECKING:
    from rankguard.cli.front.frame import Painter

AFTER_S, EVERY_S, AGAIN_S = 0.5, 0.25, 1.0
"""The first look at a start; from one look to the next; and to the next of one line, of which only the clock changes, or
where the terminal is somebody else's now. (A window that is too low is looked at when it changes: SIGWINCH.)"""
SPOKEN_S, LINE_S = 60.0, 60.0
LEFT_FREE = 5
"""Lines of the terminal that a frame leaves to the ranks."""
ALL, SOME = 16, 8
"""Up to so many ranks each has its row; of more than that so many are told."""
LEAST_COLUMNS, LEAST_ROWS = 20, 8

Ask = Callable[[dict[str, Any]], None]


class View:
    """Of one job. `ask` sends to the supervisor. `up`: there is something on the screen, or will be in a moment;
    `leaving`: it is being taken away, until the supervisor says that it is gone.
    """

    def __init__(self, nprocs: int, began: float, ask: Ask, *, unicode: bool = True, expects: bool = False) -> None:
        self._nprocs, self._began, self._ask, self._unicode = nprocs, began, ask, unicode
        self._expects = expects
        self._painter: Painter | None = None
        self._due: float | None = began + AFTER_S
        self._waiting = False
        self._over = self._asleep = self._held = self._small = False
        self.up = self.leaving = False

    # ── When ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def due_at(self) -> float | None:
        """When `tick` wants to be called."""
        return None if self._over or self._asleep or self._held or self._waiting or self._small else self._due

    def tick(self, now: float) -> None:
        """Ask for a glimpse if it is time for one and there is a place for a view."""
        due = self.due_at()
        if due is None or now < due:
            return
        size = _place()
        if size is None:
            self.hide()
            self._due = now + AGAIN_S
            self._small = _too_small()
            if not self._expects and now - self._began > LINE_S:  # there is nothing to show before somebody speaks
                self._sleep()
            return
        self._waiting = True
        self._ask({"do": "glimpse", "rows": _rows(self._nprocs, size[1])})

    def told(self, what: str, now: float) -> None:
        """What the supervisor told: `all-ready`, `stopping` and a failure end the view."""
        if what in ("all-ready", "judged", "attempt-failed", "stopping"):
            self._over = True
            self.hide()
        elif what == "readiness-expected":
            self._expects = True
            self._wake(now)

    def _sleep(self) -> None:
        self._asleep = True
        self._ask({"do": "glimpse", "when": "spoken"})

    def _wake(self, now: float) -> None:
        if self._asleep:
            self._asleep, self._due = False, now

    def resized(self, now: float) -> None:
        """The terminal has another size."""
        if self.up or self._small:
            self._small, self._due = False, now

    def hold(self) -> None:
        """Take it away, and draw none until `go_on`: somebody else gets the terminal."""
        self._held = True
        self.hide()

    def go_on(self, now: float) -> None:
        """The terminal is ours again."""
        self._held, self._due = False, now

    def hide(self) -> None:
        """Take it away; the next tick may bring it back."""
        if self.up:
            self.up, self.leaving = False, True
            self._ask({"do": "frame", "lines": [], "width": 0})

    # ── What ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def answered(self, message: dict[str, Any], now: float) -> None:
        """The supervisor's answers: a glimpse, that a rank has spoken, that a frame is gone."""
        match message["is"]:
            case "glimpse":
                self._show(message, now)
            case "spoken":
                self._wake(now)
            case "cleared":
                self.leaving = False

    def _show(self, seen: dict[str, Any], now: float) -> None:
        form, size = _form(seen), _place()
        self._waiting, self._due = False, now + (AGAIN_S if form == "line" else EVERY_S)
        if self._over or self._held or size is None:
            self.hide()
        elif form is None:
            self.hide()
            self._sleep()
        else:
            self._draw(form, seen, size[0])

    def _draw(self, form: str, seen: dict[str, Any], columns: int) -> None:
        if self._painter is None:
            from rankguard.cli.front.frame import Painter

            self._painter = Painter(unicode=self._unicode)
        draw = self._painter.table if form == "table" else self._painter.line
        try:
            lines = draw(seen, columns)
        except ImportError:  # a rich that cannot be used: `progress.py` has its lines
            self._over = True
            self.hide()
            return
        self.up = True
        self._ask({"do": "frame", "lines": lines, "width": columns - 1})


def view(asked: SimpleNamespace, spec: JobSpec, began: float, ask: Ask, env: Mapping[str, str]) -> View | None:
    """The view of this job, if stderr is a terminal that may have one: not with `-q`, `--report` or `--log-format` for
    programs, `--debug` (a rank has the terminal), `NO_COLOR`, `TERM=dumb`, in a CI log, or where rich is missing. Nor with
    stdout in a pipe: its reader (`| tee log`) may write to the same terminal, and would be erased with the view.
    """
    plain = asked.quiet or asked.report != "text" or asked.log_format != "text" or spec.debug_rank is not None
    if plain or asked.no_color or not in_color(2) or env.get("CI", "") not in ("", "0", "false"):
        return None
    if _in_a_pipe(1) or importlib.util.find_spec("rich") is None:
        return None
    expects = spec.expect_ready or spec.ready_timeout is not None
    return View(spec.nprocs, began, ask, unicode=_speaks_unicode(env), expects=expects)


def _in_a_pipe(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _form(seen: dict[str, Any]) -> str | None:
    """`table`, `line`, or nothing that would be worth a place on the screen."""
    if seen["expects"]:
        return "table"
    if seen["told"] is not None:
        return "table" if seen["told"] < SPOKEN_S else None
    return "line" if seen["heard"] is None and seen["elapsed"] < LINE_S else None


def _place() -> tuple[int, int] | None:
    """Columns and rows of the terminal, if a view may stand there now: it is ours, and large enough."""
    try:
        columns, rows = os.get_terminal_size(2)
    except OSError:
        return None
    return None if _is_small(columns, rows) or in_background(2) else (columns, rows)


def _too_small() -> bool:
    """It is ours, and the kernel tells when that changes: SIGWINCH goes to who is in the foreground."""
    try:
        return _is_small(*os.get_terminal_size(2)) and not in_background(2)
    except OSError:
        return False


def _is_small(columns: int, rows: int) -> bool:
    return columns < LEAST_COLUMNS or rows < LEAST_ROWS


def _rows(nprocs: int, height: int) -> int:
    """How many ranks are told: all, or those that hold the others up. A heading, the rest and the sum take a line each."""
    most = max(0, height - LEFT_FREE - 2)
    return nprocs if nprocs <= min(most, ALL) else min(SOME, max(0, most - 1))


def _speaks_unicode(env: Mapping[str, str]) -> bool:
    """As the locale says. Where nothing is said (most containers), terminals have spoken UTF-8 for twenty years."""
    locale = env.get("LC_ALL") or env.get("LC_CTYPE") or env.get("LANG") or "UTF-8"
    return "utf" in locale.lower()
