r"""Bytes of a rank's stream into whole lines.

A line ends with `\n`. A `\r` starts the line anew, as a terminal shows it, so that of a progress bar only the last
state is left. A line longer than `LONGEST` is cut into pieces: nothing is lost, and nothing grows without bound.
"""

LONGEST = 64 << 10


class Lines:
    """One stream. `feed` gives complete lines without their end; `partial` is what waits for its end."""

    __slots__ = ("partial",)

    def __init__(self) -> None:
        self.partial = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes."""
        lines = (self.partial + data).split(b"\n")
        self.partial = lines.pop()
        if len(self.partial) > LONGEST:
            lines.append(self.partial)
            self.partial = b""
        return [last_state(line) for line in lines] if b"\r" in data or b"\r" in self.partial else lines

    def rest(self) -> list[bytes]:
        """What waits for an end that does not come."""
        rest, self.partial = self.partial, b""
        return [last_state(rest)] if rest else []


def last_state(line: bytes) -> bytes:
    """What a terminal would show of a line with carriage returns in it."""
    line = line.rstrip(b"\r")
    return line[line.rfind(b"\r") + 1 :]
