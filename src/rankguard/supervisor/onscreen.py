"""The supervisor's end of the live view: the screen that it stands on.

The front asks for a glimpse a few times a second and sends back the lines to show (`cli/front/view.py`). When the front is gone
or the job is being stopped, the view goes, whatever the front says.
Read next: `glimpses.py`, `../report/screen.py` (ranks' lines above, a frame below), `../cli/front/frame.py` (what it looks like).
"""

from collections.abc import Callable

from rankguard.facts import Fact, StatusTold
from rankguard.jobspec import JobSpec
from rankguard.linux.console import Console
from rankguard.orders import Order, Tell
from rankguard.report.output import Output, Sink
from rankguard.report.screen import Screen
from rankguard.supervisor.glimpses import Glimpses
from rankguard.wire import Message


class OnScreen:
    """The terminal that stderr is, if it is one. `sinks` are what the ranks' lines go to, in place of the consoles."""

    def __init__(self, spec: JobSpec, both: tuple[Console | None, Console | None], on_terminal: bool) -> None:
        self._screen: Screen | None = None
        self._reads = spec.stdin_rank
        self._glimpses: Glimpses | None = None
        self._output: Output | None = None
        self.sinks: tuple[Sink | None, Sink | None] = both
        out, error = both
        if error is not None and on_terminal:
            self._screen = Screen(error, self._prompting)
            self.sinks = (self._screen if out is error else out), self._screen

    def answer(self, glimpses: Glimpses, output: Output) -> dict[str, Callable[[Message, float], Message | None]]:
        """What the front may ask of it."""
        self._glimpses, self._output = glimpses, output
        return {"glimpse": glimpses.ask, "frame": self._frame, "say": self._say}

    def _prompting(self) -> bool:
        """The rank that reads stdin has begun a line: a question, perhaps."""
        return self._reads is not None and self._output is not None and self._output.open_rank() == self._reads

    def _frame(self, ask: Message, _now: float) -> Message | None:
        """`lines`, none wider than `width` cells. An empty frame is answered once it is gone."""
        if self._screen is not None:
            self._screen.show(ask["lines"], ask["width"])
        return None if ask["lines"] else {"is": "cleared"}

    def _say(self, ask: Message, _now: float) -> Message:
        """A line of the front, above everything that is open."""
        if self._screen is not None:
            self._screen.say(ask["text"])
        return {"is": "said", "number": ask["number"]}

    def listen(self, told: Fact | Order) -> None:
        """Of every fact and order: those that end a view, and the first status that one may wait for."""
        if isinstance(told, StatusTold) and self._glimpses is not None:
            self._glimpses.spoken()
        elif isinstance(told, Tell) and told.what in ("judged", "stopping"):  # also when the front is gone
            self.close()

    def next_wake(self) -> float | None:
        return self._screen.due_at() if self._screen is not None else None

    def wake(self, now: float) -> None:
        """Draw again what gave way."""
        due = self.next_wake()
        if self._screen is not None and due is not None and due <= now:
            self._screen.redraw()

    def close(self) -> None:
        """No view from here on."""
        if self._screen is not None:
            self._screen.close()
