"""The page server as a program: `python -I -S serve.py PACKAGE SUPERVISOR SIZE`, executed by the supervisor.

File descriptors: 3 the listening socket, 4 the supervisor's feed, 5 the journal (if SIZE is not 0: so many bytes of it are
from before us). PACKAGE: the folder that holds the package. It ends with its feed. Read next: `server.py`.
"""

import os
import socket
import sys

LISTENING, FEED, JOURNAL = 3, 4, 5
NICE = 5
"""Of pages and ranks, ranks come first, where the kernel does not share processors by session anyway (sched(7))."""


def main() -> None:
    """Serve until the supervisor is gone."""
    package, supervisor, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sys.path.append(package)  # behind the standard library, as in `warden.py`
    from rankguard.http.server import Server
    from rankguard.linux.libc import set_name

    os.nice(NICE)
    set_name("rankguard-http")
    listening, feed = socket.socket(fileno=LISTENING), socket.socket(fileno=FEED)
    for end in (listening, feed):
        end.setblocking(False)
    server = Server(listening, feed, supervisor)
    if size:
        with open(JOURNAL, "rb") as journal:
            server.history(journal, size)
    server.run()
    os._exit(0)  # nothing is to be put in order, and nobody is to be waited for


if __name__ == "__main__":
    main()
