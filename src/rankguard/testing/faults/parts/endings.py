"""A rank that ends by itself: with a code, by returning, by an exception of any make."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import NoReturn

from rankguard.testing.faults.actor import Actor

LINGER_S = 2.0
NO_SUCH_MODULE = "rankguard_no_such_module"


def exit_code(_actor: Actor) -> NoReturn:
    os._exit(3)


def sys_exit_code(_actor: Actor) -> NoReturn:
    sys.exit(4)


def sys_exit_text(_actor: Actor) -> NoReturn:
    sys.exit("no licence for this model")


def sys_exit_none(_actor: Actor) -> NoReturn:
    sys.exit()


def returns(_actor: Actor) -> None:
    """The program ends as if its work were done."""


def load_shard() -> NoReturn:
    raise ValueError("shard 7 has 4095 rows, expected 4096")


def exception(_actor: Actor) -> None:
    load_shard()


def exception_chained(_actor: Actor) -> None:
    try:
        load_shard()
    except ValueError as error:
        raise RuntimeError("unable to load the model") from error


def exception_while_handling(_actor: Actor) -> None:
    """The first one is the context of the second."""
    try:
        load_shard()
    except ValueError:
        os.environ["RANKGUARD_NO_SUCH_FALLBACK"]


def exception_group(_actor: Actor) -> NoReturn:
    raise ExceptionGroup("two loaders failed", [ValueError("shard 7 is short"), OSError(5, "Input/output error")])


class Unpicklable(Exception):  # a program's own
    """Holds what cannot travel, and cannot be made from its `args`."""

    def __init__(self, shard: int, lock: object) -> None:
        super().__init__(f"shard {shard} is locked")
        self.lock = lock

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle this exception")


def exception_unpicklable(_actor: Actor) -> NoReturn:
    raise Unpicklable(7, threading.Lock())


def exception_slow_finally(_actor: Actor) -> None:
    """Says goodbye for seconds while the exception is on its way out, as a process group does."""
    try:
        load_shard()
    finally:
        _linger()


def exception_slow_with(_actor: Actor) -> None:
    with _torn_down_slowly():
        load_shard()


@contextmanager
def _torn_down_slowly() -> Iterator[None]:
    try:
        yield
    finally:
        _linger()


def _linger() -> None:
    signal.sigtimedwait([], LINGER_S)  # time itself is the fault


def exception_in_thread(_actor: Actor) -> NoReturn:
    """The main thread waits for the thread, and gives up."""
    thread = threading.Thread(target=load_shard, name="loader")
    thread.start()
    thread.join()
    os._exit(1)


def exception_in_atexit(_actor: Actor) -> None:
    """Python prints it and ends with 0 (`atexit`: only `SystemExit` would count)."""
    atexit.register(load_shard)


def keyboard_interrupt(_actor: Actor) -> NoReturn:
    """Raised by the program, not by a signal: Python then ends itself by SIGINT."""
    raise KeyboardInterrupt


def import_error(_actor: Actor) -> None:
    import_module(NO_SUCH_MODULE)
