"""Runs at the start of every Python that a test in `tests/torch` starts: its end waits until gloo's threads rest.

A thread of gloo drops the tensors of a collective after it has told the program that it is done. If Python is shutting
down by then, the thread is ended where it may not be, and the process aborts (pytorch issue 190489; torch 2.13 does it
now and then under torchrun, too). Here a rank has to end with its own code: what is tested is what that makes of the
others. All else about its end is as it would be.

In a folder of its own, since Python knows it by its name; `conftest.py` is who names the folder.
"""

import atexit
import os
import time

PAUSE_S = 0.01


def rest():
    """Return when all of gloo's threads sleep, and have not been awake while this one slept.

    It sleeps without the interpreter's lock, so that a thread that waits for the lock is no thread that sleeps on.
    """
    seen = None
    while (now := gloo_threads()) != seen or any(state != "S" for state, *_switches in now.values()):
        seen = now
        time.sleep(PAUSE_S)


def gloo_threads():
    """Task → its state, and how often it has left the processor."""
    found = {}
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/status") as lines:
                told = dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)
        except OSError:  # it has ended
            continue
        if told["Name"] == "pt_gloo_runloop":
            found[task] = told["State"][0], told["voluntary_ctxt_switches"], told["nonvoluntary_ctxt_switches"]
    return found


def at_exit():
    if gloo_threads():
        rest()


atexit.register(at_exit)
