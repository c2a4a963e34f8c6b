"""A rank that breeds: children of every kind that is hard to find again. `brood.py FOLDER SECONDS [ignore]`.

Every process of it stays in the job's working folder (that is how `nest.py` finds it, whatever it did with its
session, parent or environment) and appends `KIND PID` to FOLDER/pids.
"""

import os
import signal
import sys
import time

LIFE_S = 60.0


def record(folder: str, kind: str) -> None:
    """Append `kind pid` in one write."""
    fd = os.open(f"{folder}/pids", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{kind} {os.getpid()}\n".encode())
    os.close(fd)


def main() -> None:
    """Breed, then stay for the seconds that were asked for."""
    folder, seconds = sys.argv[1], float(sys.argv[2])
    record(folder, "rank")
    if "ignore" in sys.argv[3:]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:  # an ordinary child
        record(folder, "child")
        time.sleep(LIFE_S)
        os._exit(0)
    if os.fork() == 0:  # an escapee: another session, another parent, deaf
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            record(folder, "escapee")
            time.sleep(LIFE_S)
        os._exit(0)
    if os.fork() == 0:  # one whose environment says nothing, behind an escape
        if os.fork() == 0:
            os.setsid()
            record(folder, "bare")
            os.execve("/bin/sleep", ["sleep", str(int(LIFE_S))], {})
        os._exit(0)
    time.sleep(seconds)
    os._exit(0)


if __name__ == "__main__":
    main()
