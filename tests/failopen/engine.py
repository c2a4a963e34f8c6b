"""An engine with children, one of them in a session of its own, one rank-like (`worker-0`), one that is killed at once:
`engine.py FOLDER [CODE] [deaf]`.

It says that it is ready (sd_notify), writes `up` to FOLDER/up once all are there, then a line to stdout and to stderr
each 20 ms, and ends with CODE when FOLDER/end exists; by SIGTERM it ends with 9, after a last line. It writes its exit code to FOLDER/ended,
and into FOLDER/written when it wrote which line.
"""

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path


def say(fd: int, text: str) -> None:
    """A line, if anybody is left to read it."""
    with contextlib.suppress(BrokenPipeError):
        os.write(fd, f"{text}\n".encode())


def notify(*lines: str) -> None:
    """sd_notify(3); nobody may listen."""
    path = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end, contextlib.suppress(OSError):
        end.sendto("\n".join(lines).encode(), path.replace("@", "\0", 1) if path[0] == "@" else path)


def main() -> None:
    """Until it is told to end."""
    folder, code = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 7
    for name, escape in (("sleep", False), ("sleep", True), ("worker-0", False)):
        if os.fork() == 0:
            if escape:
                os.setsid()
            os.execv("/bin/sleep", [name, "60"])
    if os.fork() == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    os.wait()
    if "NOTIFY_SOCKET" in os.environ:
        notify("STATUS=loading", "READY=1")

    def term(number: int, frame: object) -> None:
        say(1, "told to end")
        os._exit(9)

    deaf = "deaf" in sys.argv
    signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else term)
    if deaf:
        signal.signal(signal.SIGINT, lambda _number, _frame: (folder / "interrupted").touch())
    signal.signal(signal.SIGUSR1, lambda _number, _frame: (folder / "told").touch())
    (folder / "up").write_text("up\n")
    count = 0
    written = os.open(folder / "written", os.O_CREAT | os.O_WRONLY, 0o666)
    while not (folder / "end").exists():
        count += 1
        say(written, f"{count} {time.monotonic()}")
        say(1, f"line {count}")
        say(2, f"error {count}")
        time.sleep(0.02)
    say(1, f"last {count}")
    (folder / "ending").write_text(str(code))
    (folder / "ending").rename(folder / "ended")  # who waits for it finds it whole
    os._exit(code)


if __name__ == "__main__":
    main()
