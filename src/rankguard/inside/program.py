"""How Python runs a program, repeated in Python: a script, a module, a directory or archive, a shipped function.

The original is CPython's `Modules/main.c` (`pymain_run_python`), `Python/pythonrun.c` (`_PyRun_SimpleFile`, `PyErr_Print`)
and `runpy`; names of its functions stand where a step is theirs.

Not the report of an exception (`lastwords.py`); it is called from here, once, before the traceback is printed.
"""

import os
import sys
import time

__rankguard_frame__ = True
"""Frames of modules with this mark are cut off tracebacks."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import CodeType, ModuleType
    from typing import Any

_display = sys.__excepthook__  # PyErr_Display, before anybody can replace it
_missing = object()


def main(
    arguments: "list[str]",
    first_names: "Mapping[str, Any]",
    report: "Callable[[BaseException, float], None]",
    function: "Callable[[], Any]",
) -> None:
    """Runs the program to its end and leaves as `python` would: by returning, `SystemExit` or `KeyboardInterrupt`.

    `first_names` are those of a main module that has run nothing yet; `function` loads our `function.py`.
    """
    _enable_faulthandler()
    fresh = fresh_main(first_names)
    script = False
    try:
        if arguments[0] == "-m":
            run, what = _module(arguments)
        elif arguments[0] == "--function":
            run, what = function().run, (int(arguments[1]), report)
        else:
            run, what = _script(arguments, fresh)
            script = run is exec
        run(*what)
        failure = None
    except SystemExit as leaving:
        at = time.clock_gettime(time.CLOCK_MONOTONIC)
        if leaving.code not in (None, 0):  # torch takes seconds from here to the exit, and loses its peers meanwhile
            report(leaving, at)
        raise
    except BaseException as error:  # noqa: BLE001  # everything that ends a program
        failure = (error, time.clock_gettime(time.CLOCK_MONOTONIC))
    if failure is not None:
        _fail(*failure, report)
    if script:  # _PyRun_SimpleFile takes back what it has set
        for name in ("__file__", "__cached__"):
            fresh.__dict__.pop(name, None)
    if failure is not None:
        _leave(failure[0])


def _enable_faulthandler() -> None:
    try:
        import faulthandler

        if not faulthandler.is_enabled():
            faulthandler.enable()
            _make_room_for_signals()
    except (ImportError, AttributeError, RuntimeError, ValueError, OSError):
        pass  # stderr is closed: there is nowhere to write to


def _make_room_for_signals() -> None:
    """Another stack for signal handlers, in place of the one that `enable` has made: 12 KiB, on which Python's own handlers
    run from then on (SA_ONSTACK), each with 3 KiB of registers. Five signals in one instant ended a rank by SIGSEGV, which
    plain Python survives.

    By hand, since `ctypes` costs milliseconds. What the kernel is told of must never be freed.
    """
    if sys.implementation.name != "cpython" or sys.maxsize < 1 << 32:
        return
    try:
        import _ctypes

        room = bytes(1 << 20)  # calloc: address space, no memory until a signal comes
        at = id(room) + bytes.__basicsize__ - 1  # where its content begins, in CPython
        told = b"".join(number.to_bytes(8, sys.byteorder) for number in (at, 0, len(room)))  # stack_t, sigaltstack(2)
        call = _ctypes.dlsym(_ctypes.dlopen(None, 0), "sigaltstack")  # type: ignore[arg-type]  # None: what is here already
        _ctypes.Py_INCREF(room)
        _ctypes.call_function(call, (told, None))
    except (ImportError, AttributeError, TypeError, OSError, MemoryError):
        pass  # then it is as faulthandler has it


def fresh_main(names: "Mapping[str, Any]") -> "ModuleType":
    """A main module that has run nothing yet, in its place."""
    module = type(sys)("__main__")
    module.__dict__.update(names)
    module.__dict__.update(__doc__=None, __loader__=None, __spec__=None)
    if "__annotations__" in names:
        module.__annotations__ = {}
    for name in ("__file__", "__cached__"):
        module.__dict__.pop(name, None)
    sys.modules["__main__"] = module
    return module


# ── Module, directory, archive, script ───────────────────────────────────────────────────────────────────────────


def _module(arguments: "list[str]") -> "tuple[Any, tuple[Any, ...]]":
    """`-m MODULE`: pymain_run_module, which is runpy's private door; so tracebacks show what they always show."""
    sys.argv = ["-m", *arguments[2:]]
    if not sys.flags.safe_path:
        try:
            sys.path.insert(0, os.getcwd())
        except OSError:
            pass
    import runpy

    return runpy._run_module_as_main, (arguments[1], True)  # type: ignore[attr-defined]  # noqa: SLF001


def _script(arguments: "list[str]", fresh: "ModuleType") -> "tuple[Any, tuple[Any, ...]]":
    sys.argv = arguments
    name = arguments[0]
    path = name if os.path.isabs(name) else _from_here(name)
    if _importer(path) is not None:  # a directory or an archive: with safe_path, too
        sys.path.insert(0, path)
        import runpy

        return runpy._run_module_as_main, ("__main__", False)  # type: ignore[attr-defined]  # noqa: SLF001
    if not sys.flags.safe_path:  # _PyPathConfig_ComputeSysPath0: links resolved, a missing file left as it is
        sys.path.insert(0, os.path.dirname(os.path.realpath(name)))
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:  # pymain_run_file
        _print(f"{sys.orig_argv[0]}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}\n")
        raise SystemExit(2) from None
    fresh.__dict__["__file__"], fresh.__dict__["__cached__"] = path, None
    return exec, (_code(path, content, fresh), fresh.__dict__)


def _from_here(name: str) -> str:
    """`_Py_abspath`: joined, never normalised."""
    try:
        return f"{os.getcwd()}/{name}"
    except OSError:
        return name


def _importer(path: str) -> object:
    """`PyImport_GetImporter`."""
    if path not in sys.path_importer_cache:
        sys.path_importer_cache[path] = None
        for hook in sys.path_hooks:
            try:
                sys.path_importer_cache[path] = hook(path)
                break
            except ImportError:
                continue
    return sys.path_importer_cache[path]


def _code(path: str, content: bytes, fresh: "ModuleType") -> "CodeType":
    from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader, SourcelessFileLoader

    if path.endswith(".pyc") or content[:4] == MAGIC_NUMBER:  # maybe_pyc_file
        if content[:4] != MAGIC_NUMBER:
            raise RuntimeError("Bad magic number in .pyc file")
        import marshal

        fresh.__loader__ = SourcelessFileLoader("__main__", path)
        code: CodeType = marshal.loads(content[16:])  # noqa: S302  # what `python FILE.pyc` does
        return code
    fresh.__loader__ = SourceFileLoader("__main__", path)
    return compile(content, path, "exec", dont_inherit=True)


# ── An uncaught exception ────────────────────────────────────────────────────────────────────────────────────────


def _fail(error: BaseException, at: float, report: "Callable[[BaseException, float], None]") -> None:
    """PyErr_Print, with our frames cut off and the report before it."""
    tb = error.__traceback__
    while tb is not None and "__rankguard_frame__" in tb.tb_frame.f_globals:
        tb = tb.tb_next
    BaseException.with_traceback(error, tb)
    if not isinstance(error, KeyboardInterrupt):
        report(error, at)
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, S110  # flush_io
            pass
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, tb
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    hook: Any = getattr(sys, "excepthook", _missing)
    try:
        sys.audit("sys.excepthook", hook, type(error), error, tb)
    except RuntimeError:
        return
    if hook is _missing:
        _print("sys.excepthook is missing\n")
        _display(type(error), error, tb)
        return
    try:
        hook(type(error), error, tb)
    except SystemExit:
        raise
    except BaseException as worse:  # noqa: BLE001  # as _PyErr_PrintEx words it
        inner = worse.__traceback__.tb_next if worse.__traceback__ else None
        _print("Error in sys.excepthook:\n")
        BaseException.with_traceback(worse, inner)
        _display(type(worse), worse, inner)
        _print("\nOriginal exception was:\n")
        _display(type(error), error, tb)


def _print(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except Exception:  # noqa: BLE001, S110  # no stderr: nobody to tell
        pass


def _leave(error: BaseException) -> None:
    if type(error) is not KeyboardInterrupt:
        raise SystemExit(1)
    # Python ends by SIGINT only when the exception itself leaves the main script (run_eval_code_obj): let it, silently.
    hook, tb = getattr(sys, "excepthook", _display), error.__traceback__

    def printed_already(kind: object, value: BaseException, longer: object) -> None:
        sys.excepthook = hook
        sys.last_traceback = BaseException.with_traceback(value, tb).__traceback__

    sys.excepthook = printed_already
    raise error
