"""Started as `PYTHON bootstrap.py SCRIPT ARGS…`, `… -m MODULE ARGS…` or `… --function FD`: runs a rank's program.

Makes itself scarce: the program finds the interpreter as `PYTHON SCRIPT ARGS…` would have left it, but for two open
descriptors (the supervisor's socket, a file for stacks), faulthandler (for crashes, and on one real-time signal), two
frames at the bottom of the stack (`traceback.print_stack` shows them, tracebacks of exceptions do not), and
`sys.orig_argv`.

Not a module to import. It cannot use the import system for its own parts either: nothing of ours belongs on the
program's `sys.path`, and rankguard need not be importable there.

Read next: `program.py` (how Python runs a script, repeated), `lastwords.py` (what is reported on an exception),
`ownstack.py` (the file for stacks).
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_as_python_made_it = {
    name: globals().get(name) for name in list(globals()) if name not in ("sys", "TYPE_CHECKING", "__doc__")
}

import os  # noqa: E402  # after the snapshot of a main module that has imported nothing
from _frozen_importlib_external import SourceFileLoader  # noqa: E402  # importlib's own, without importing importlib

__rankguard_frame__ = True

_here = os.path.dirname(__file__)
_parts: "dict[str, Any]" = {}


def _part(name: str) -> "Any":
    """One of our modules, from its byte code where Python keeps it, without a trace in `sys.modules`; loaded once."""
    if name in _parts:
        return _parts[name]
    loader = SourceFileLoader(f"rankguard.inside.{name}", f"{_here}/{name}.py")
    module = type(sys)(loader.name)
    module.__file__ = loader.path
    exec(loader.get_code(loader.name), module.__dict__)  # type: ignore[arg-type]  # noqa: S102  # a source file has code
    _parts[name] = module
    return module


if __name__ == "__main__":
    # C code goes on using the first main module after us; multiprocessing keeps it too (`spawn.old_main_modules`).
    sys.modules["__rankguard_main__"] = sys.modules["__main__"]
    if not sys.flags.safe_path and sys.path and sys.path[0] == os.path.dirname(os.path.realpath(__file__)):
        del sys.path[0]  # put there for the script that Python believes to run: us
    if "RANKGUARD_WARM" in os.environ:
        for _name in ("line", "ownstack", "lastwords", "program"):
            _part(_name)  # once, not in every rank
        _part("warm").serve(
            int(os.environ["RANKGUARD_WARM"]),
            lambda program: _part("imports").find(program),
            lambda: _part("program").fresh_main(_as_python_made_it),
        )
    _line = _part("line")
    _part("ownstack").offer(os.environ.get("NOTIFY_SOCKET", ""), _line.out_of_the_way)
    _words = _part("lastwords").LastWords(_line.Line(os.environ.get("NOTIFY_SOCKET", "")))
    _part("program").main(sys.argv[1:], _as_python_made_it, _words.report, lambda: _part("function"))
