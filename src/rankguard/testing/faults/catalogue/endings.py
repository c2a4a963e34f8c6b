"""A rank that ends by itself."""

from rankguard.testing.faults.catalogue.expected import exits, failed, left_early, raises, says
from rankguard.testing.faults.fault import Fault

_UNREADY = ("starting", "stopping")
"""A rank that has been ready may end with 0."""


FAULTS = (
    Fault(
        "exit-code", "exits with code 3", "endings:exit_code",
        exits(3, "wait status"),
    ),
    Fault(
        "sys-exit-code", "calls sys.exit(4)", "endings:sys_exit_code",
        exits(4, "wait status"),
    ),
    Fault(
        "sys-exit-text", "calls sys.exit with a text: code 1", "endings:sys_exit_text",
        exits(1, "wait status"),
    ),
    Fault(
        "exit-early", "ends with 0 before it was ready", "endings:sys_exit_none", left_early, phases=_UNREADY,
    ),
    Fault("returns", "returns before it was ready", "endings:returns", left_early, phases=_UNREADY),
    Fault(
        "exception", "raises ValueError", "endings:exception",
        raises("ValueError", *says("shard 7 has 4095 rows"), evidence=("rank", "wait status")),
    ),
    Fault(
        "exception-chained", "raises RuntimeError from ValueError", "endings:exception_chained",
        raises("RuntimeError"),
    ),
    Fault(
        "exception-while-handling", "raises KeyError while it handles ValueError", "endings:exception_while_handling",
        raises("KeyError"),
    ),
    Fault(
        "exception-group", "raises an ExceptionGroup of two", "endings:exception_group",
        raises("ExceptionGroup"),
    ),
    Fault(
        "exception-unpicklable", "raises what cannot be pickled", "endings:exception_unpicklable",
        raises("Unpicklable"),
    ),
    Fault(
        "exception-slow-finally", "raises, and stays 2 s in a `finally`", "endings:exception_slow_finally",
        raises("ValueError"),
    ),
    Fault(
        "exception-slow-with", "raises, and leaves a `with` after 2 s", "endings:exception_slow_with",
        raises("ValueError"),
    ),
    Fault(
        "exception-in-thread", "has a thread that raises, then exits with 1", "endings:exception_in_thread",
        raises("ValueError", evidence=("log", "wait status"), confidence="likely"),
    ),
    Fault(
        "exception-in-atexit", "raises in atexit: Python ends with 0",
        "endings:exception_in_atexit", left_early, phases=_UNREADY,
    ),
    Fault(
        "keyboard-interrupt", "raises KeyboardInterrupt: SIGINT ends it", "endings:keyboard_interrupt",
        failed("killed", "operator", 130, "wait status", "log", confidence="likely", signal="SIGINT"),
    ),
    Fault(
        "import-error", "imports a module that is not there", "endings:import_error",
        raises("ModuleNotFoundError"),
    ),
)  # fmt: skip
