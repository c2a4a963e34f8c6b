"""In the caller: packs a Python function and its arguments for the ranks (`inside/function.py` unpacks them).

Arguments travel as with `multiprocessing.Process` under the spawn method: `ForkingPickler`, with a popen object of ours in
the thread's spawning slot, so that queues, locks, pipes, shared memory and sockets agree to be pickled. Descriptors are
duplicated at once and travel beside the pickle. One shipment serves all ranks.

Nothing global of the caller is changed: no start method is fixed (so not `spawn.get_preparation_data`, which does), no
resource tracker started. What cannot travel is a `UsageError` that names the argument.
"""

import functools
import io
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import IO, Any, Self

from rankguard.errors import UsageError
from rankguard.inside.function import LENGTH, Inherited

__all__ = ["Shipment", "ship"]


class Shipment:
    """What the supervisor puts into every rank as descriptors 3 (`memfd`) and 4, 5, … (`fds`). Close it after."""

    def __init__(
        self, memfd: int, fds: list[int], cargo: object, path: tuple[str, ...] = (), files: tuple[str, ...] = ()
    ) -> None:
        self.memfd, self.fds = memfd, fds
        self.path, self.files = path, files
        """The ranks' `sys.path`, and the files that each of them imports before it calls the function, in that order."""
        self._cargo = cargo
        """Kept alive as long as this object: a semaphore's name is unlinked when the caller's own object goes, and the
        ranks open it by name. So keep the shipment, closed, until every rank has begun."""

    def close(self) -> None:
        """Closes the descriptors, which are duplicates; a second time does nothing."""
        fds, self.memfd, self.fds = [self.memfd, *self.fds], -1, []
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def ship(target: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Shipment:
    """Packs `target(rank, *args, **kwargs)`. Raises `UsageError` naming the argument that cannot travel."""
    if not callable(target):
        raise UsageError(f"target is a {_type_name(target)}, not a function")
    call = (target, tuple(args), dict(kwargs))
    main_name, main_path = _main_module()
    by_reference = main_name is not None or main_path is not None
    spawning = _Spawning()
    memfd = os.memfd_create("rankguard-function", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(memfd, "r+b", closefd=False) as file:
            _pack(call, file, spawning, by_reference)
            preparation = _preparation(main_name, main_path, spawning)
            data = pickle.dumps(preparation)
            file.write(data + len(data).to_bytes(LENGTH, "little"))
        _seal(memfd)
        files = _files(target, by_reference)
        return Shipment(memfd, spawning.fds, call, tuple(preparation["sys_path"]), files)
    except BaseException:
        os.close(memfd)
        spawning.drop()
        raise


class _Spawning:
    """Plays the part of `multiprocessing.popen_forkserver.Popen` while something is pickled."""

    method = "spawn"
    DupFd = Inherited

    def __init__(self) -> None:
        self.fds: list[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        self.fds.append(os.dup(fd))  # close-on-exec, and ours: the caller may close its own right away
        return len(self.fds) - 1

    def drop(self) -> None:
        while self.fds:
            os.close(self.fds.pop())


# ── Pickling ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _pack(call: tuple[Any, ...], file: IO[bytes], spawning: _Spawning, by_reference: bool) -> None:
    picklers = list(_picklers(by_reference))
    for pickler in picklers:
        file.seek(0)
        file.truncate()
        spawning.drop()
        try:
            return _dump(pickler, call, file, spawning)
        except Exception:  # noqa: BLE001, S112  # __getstate__ is anybody's code; told apart below
            continue
    raise _blame(call, picklers[-1], by_reference)


def _picklers(by_reference: bool) -> Iterator[type[pickle.Pickler]]:
    """In the order in which they are tried: by reference where the ranks can import it, else by value."""
    from multiprocessing.reduction import ForkingPickler

    yield ForkingPickler if by_reference else _without_main()
    try:
        import cloudpickle  # type: ignore[import-untyped,import-not-found,unused-ignore]  # not a dependency
    except ImportError:
        return
    from collections import ChainMap

    extra = ForkingPickler._extra_reducers  # type: ignore[attr-defined]  # noqa: SLF001  # live: others register later

    class ByValue(cloudpickle.Pickler):  # type: ignore[misc]  # as above
        # Of the class: the C pickler looks it up once, at its start, and cloudpickle's hides the one that could be set.
        dispatch_table = ChainMap(extra, cloudpickle.Pickler.dispatch_table)  # noqa: RUF012

    yield ByValue


def _without_main() -> type[pickle.Pickler]:
    """A pickler that refuses names of a main module that the ranks cannot import."""
    from multiprocessing.reduction import ForkingPickler

    class WithoutMain(ForkingPickler):
        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, FunctionType | type) and value.__module__ == "__main__":
                raise pickle.PicklingError(f"{value.__qualname__} is defined in a main module that has no file")
            return NotImplemented

    return WithoutMain


def _dump(pickler: type[pickle.Pickler], value: object, file: IO[bytes], spawning: _Spawning) -> None:
    from multiprocessing import context

    before = context.get_spawning_popen()
    context.set_spawning_popen(spawning)  # type: ignore[arg-type]  # of this thread only; it is one in all that is used
    try:
        pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    finally:
        context.set_spawning_popen(before)


# ── Which one it was ─────────────────────────────────────────────────────────────────────────────────────────────


def _blame(call: tuple[Any, ...], pickler: type[pickle.Pickler], by_reference: bool) -> UsageError:
    target, args, kwargs = call
    parts = [("target", target)]
    parts += [(f"args[{index}]", value) for index, value in enumerate(args)]
    parts += [(f"kwargs[{name!r}]", value) for name, value in kwargs.items()]
    for name, value in parts:
        found = _culprit(name, value, pickler, 4)
        if found is not None:
            where, part, error = found
            what = where if where == "target" and isinstance(part, FunctionType) else f"{where} ({_type_name(part)})"
            return UsageError(f"{what} cannot travel to the ranks: {error}", _hint(part, error, pickler, by_reference))
    return UsageError("the arguments cannot travel to the ranks together, though each of them alone can")


def _culprit(name: str, value: Any, pickler: type[pickle.Pickler], deep: int) -> tuple[str, Any, Exception] | None:
    """The innermost part of `value` that cannot be pickled, by its name."""
    spawning = _Spawning()
    try:
        _dump(pickler, value, io.BytesIO(), spawning)
        return None
    except Exception as error:  # noqa: BLE001  # __getstate__ is anybody's code
        found = error
    finally:
        spawning.drop()
    for inner_name, inner in _parts(name, value) if deep else ():
        inner_found = _culprit(inner_name, inner, pickler, deep - 1)
        if inner_found is not None:
            return inner_found
    return name, value, found


def _parts(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        return [(f"{name}[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, dict):
        return [(f"{name}[{key!r}]", item) for key, item in value.items()]
    if isinstance(value, functools.partial):
        return [
            (f"{name}.func", value.func),
            *_parts(f"{name}.args", value.args),
            *_parts(f"{name}.keywords", value.keywords),
        ]
    if type(value).__module__ in ("builtins", "queue", "threading", "multiprocessing") or isinstance(value, type):
        return []
    if type(value).__module__.startswith("multiprocessing.") or isinstance(value, FunctionType):
        return []  # their insides say less than they do
    return [(f"{name}.{key}", item) for key, item in getattr(value, "__dict__", {}).items()]


_MADE_BY = {
    "lock": "Lock",
    "Synchronized": "Value",
    "SynchronizedArray": "Array",
    "SynchronizedString": "Array",
}


def _hint(value: object, error: Exception, pickler: type[pickle.Pickler], by_reference: bool) -> str | None:
    kind = type(value)
    if "fork context" in str(error) or kind.__module__.startswith("multiprocessing."):
        name = _MADE_BY.get(kind.__name__, kind.__name__)
        return f"make it with multiprocessing.get_context('spawn').{name}()"
    if kind.__module__ in ("queue", "_queue"):
        return "it lives in one process; use multiprocessing.get_context('spawn').Queue()"
    if kind.__module__ in ("threading", "_thread"):
        return f"it lives in one process; use multiprocessing.get_context('spawn').{_MADE_BY.get(kind.__name__, kind.__name__)}()"
    if isinstance(value, FunctionType | type) and "cloudpickle" not in pickler.__mro__[1].__module__:
        where = "define it at the top of a module" if by_reference else "define it in a file"
        return f"{where}, or `pip install cloudpickle`"
    if isinstance(value, io.IOBase):
        return "open it in the rank"
    return None


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


# ── Preparation ──────────────────────────────────────────────────────────────────────────────────────────────────


def _main_module() -> tuple[str | None, str | None]:
    """Name or path under which a rank can import our main module; none of both for a notebook, `-c`, or `-`."""
    from multiprocessing import process

    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        # A __main__.py runs its program unconditionally (`spawn._fixup_main_from_name` leaves it alone, too).
        return (None if name == "__main__" or name.endswith(".__main__") else name), None
    path = getattr(main, "__file__", None)
    if path is None:
        return None, None
    path = os.path.normpath(os.path.join(process.ORIGINAL_DIR or "", path))  # type: ignore[attr-defined]  # private
    if os.path.splitext(os.path.basename(path))[0] == "ipython" or not os.path.exists(path):
        return None, None  # ipython's script has no guard; "<stdin>" is no file
    return None, path


def _files(target: object, with_main: bool) -> tuple[str, ...]:
    names = (["__main__"] if with_main else []) + [getattr(target, "__module__", "")]
    found = (getattr(sys.modules.get(name), "__file__", None) for name in names)
    return tuple(dict.fromkeys(os.path.abspath(file) for file in found if file))


def _preparation(main_name: str | None, main_path: str | None, spawning: _Spawning) -> dict[str, Any]:
    from multiprocessing import get_start_method, process, util

    logger = util._logger  # type: ignore[attr-defined]  # noqa: SLF001
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    fd = getattr(tracker, "_fd", None)  # none: it is not running, and nothing shipped is known to it
    original = process.ORIGINAL_DIR  # type: ignore[attr-defined]  # private
    index = None if fd is None else spawning.duplicate_for_child(fd)
    return {
        "fds": len(spawning.fds),
        "tracker": index,
        "authkey": bytes(process.current_process().authkey),
        "sys_path": [original if entry == "" and original else entry for entry in sys.path],
        "argv": list(sys.argv),
        "orig_dir": original,
        "start_method": get_start_method(allow_none=True),
        "log_to_stderr": bool(util._log_to_stderr),  # type: ignore[attr-defined]  # noqa: SLF001
        "log_level": None if logger is None else logger.getEffectiveLevel(),
        "main_name": main_name,
        "main_path": main_path,
    }


def _seal(fd: int) -> None:
    import fcntl

    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
