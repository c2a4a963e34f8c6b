"""A rank of `test_several.py`: waits until all are there, then fails at its instant, in its way, or waits for ever.

`several.py FOLDER PLAN`: the plan is JSON, rank → [seconds, way]. A rank writes when it began to fail, just before.
"""

import fcntl
import json
import os
import signal
import sys
import time

import rankguard


def main() -> None:
    folder, plan = sys.argv[1], json.loads(sys.argv[2])
    me = rankguard.this_rank()
    if plan["ready"]:
        me.ready()
    with open(f"{folder}/gate") as gate:
        here = os.open(f"{folder}/here", os.O_WRONLY)
        os.write(here, b".")
        os.close(here)
        fcntl.flock(gate, fcntl.LOCK_SH)  # given when all are there
    mine = plan["faults"].get(str(me.rank))
    if mine is None:
        signal.pause()
    else:
        seconds, way = mine
        signal.sigtimedwait([], seconds)  # the instant is what was drawn
        with open(f"{folder}/began-{me.rank}", "w") as began:
            began.write(str(time.monotonic()))
        WAYS[way]()


def raises() -> None:
    raise ValueError("shard 7 is short")


def exits() -> None:
    os._exit(3)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crashes() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def aborts() -> None:
    os.abort()


def says() -> None:
    rankguard.this_rank().failed("no route to rank 0")
    signal.pause()


def loses_its_peer() -> None:
    raise ConnectionResetError(104, "Connection reset by peer")


WAYS = {each.__name__: each for each in (raises, exits, killed, crashes, aborts, says, loses_its_peer)}

if __name__ == "__main__":
    main()
