"""Nothing of the bench stays: a parent above it, a subreaper, ends whatever is below once the bench is over, or was killed.

Contenders run in sessions of their own, so Ctrl-C reaches the bench alone; and some (SGLang's ranks, torchrun's) leave
their processes to others when they are killed.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

from rankguard.linux.tree import descendants

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
ASKED = (signal.SIGTERM, signal.SIGHUP)


def kept(work: Callable[[], int]) -> int:
    """Do `work` in a child, and end everything below us after it; its exit status."""
    adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the bench has it from the terminal, too, and ends by it
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)  # until each of the two knows what to do
    child = os.fork()
    if child == 0:
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in ASKED:
            signal.signal(number, _leave)
        status = 130
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
            adopt_orphans()
            status = work()
        except SystemExit as asked:
            status = asked.code if isinstance(asked.code, int) else 1
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
        except BaseException:  # shown, and a status: this process is a fork and must not go on as its parent
            sys.excepthook(*sys.exc_info())
            status = 1
        finally:
            end_all()
            sys.stdout.flush()
            os._exit(status)
    for number in ASKED:
        signal.signal(number, lambda number, _frame: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
    _pid, status = os.waitpid(child, 0)
    end_all()
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def adopt_orphans() -> None:
    """Become a subreaper: whoever loses its parent below us is ours (prctl(2))."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_all() -> None:
    """SIGKILL for everything below us, again and again until nobody is left."""
    while _reap():
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)


def _reap() -> bool:
    """Reap whoever has ended; whether any child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _leave(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
