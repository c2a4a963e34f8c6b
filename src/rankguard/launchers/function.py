"""In the caller: packs a Python function and its arguments for the ranks (`inside/function.py` unpacks them).

Arguments travel as with `multiprocessing.Process` under the spawn method: `ForkingPickler`, with a popen object of ours in
the thread's spawning slot, so that queues, locks, pipes, shared memory and sockets agree to be pickled. Descriptors are
duplicated at once and travel beside the pickle. One shipment serves all ranks.

To other machines (`pack`) values alone travel: no descriptor, and nothing of multiprocessing's.

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
from rankguard.record import Record

__all__ = ["MOST", "Parcel", "Shipment", "pack", "ship", "unpack"]

MOST = 32 << 20
"""Bytes of a function and its arguments that travel to other machines."""


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


class Parcel(Record):
    """The same for ranks on other machines: `cargo` is what `JobSpec.cargo` takes; `path` and `files` as of a `Shipment`."""

    cargo: str
    path: tuple[str, ...]
    files: tuple[str, ...]


def pack(target: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Parcel:
    """As `ship`, for other machines. Raises `UsageError` too for what is of one machine, or too much."""
    from base64 import b64encode

    with ship(target, args, kwargs, far=True) as shipment:
        size = os.fstat(shipment.memfd).st_size
        if size > MOST:
            raise UsageError(
                f"the arguments have {size / 2**20:.0f} MiB; at most {MOST >> 20} MiB travel to other machines",
                "write them to a file that every node can read",
            )
        return Parcel(b64encode(os.pread(shipment.memfd, size, 0)).decode(), shipment.path, shipment.files)


def unpack(cargo: str) -> int:
    """What an agent's ranks get as descriptor 3."""
    from base64 import b64decode

    memfd = _new_memfd()
    with open(memfd, "r+b", closefd=False) as file:
        file.write(b64decode(cargo))
    _seal(memfd)
    return memfd


def ship(
    target: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any], *, far: bool = False
) -> Shipment:
    """Packs `target(rank, *args, **kwargs)`. Raises `UsageError` naming the argument that cannot travel.

    `far`: to other machines.
    """
    if not callable(target):
        raise UsageError(f"target is a {_type_name(target)}, not a function")
    call = (target, tuple(args), dict(kwargs))
    main_name, main_path = _main_module()
    by_reference = main_name is not None or main_path is not None
    spawning = _Spawning(far=far)
    memfd = _new_memfd()
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


def _new_memfd() -> int:
    return os.memfd_create("rankguard-function", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


class _Spawning:
    """Plays the part of `multiprocessing.popen_forkserver.Popen` while something is pickled. `far`: for other machines."""

    method = "spawn"
    DupFd = Inherited

    def __init__(self, *, far: bool = False) -> None:
        self.fds: list[int] = []
        self.far = far

    def duplicate_for_child(self, fd: int) -> int:
        if self.far:
            raise pickle.PicklingError("it holds a descriptor, which means nothing on another machine")
        self.fds.append(os.dup(fd))  # close-on-exec, and ours: the caller may close its own right away
        return len(self.fds) - 1

    def drop(self) -> None:
        while self.fds:
            os.close(self.fds.pop())


# ── Pickling ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _pack(call: tuple[Any, ...], file: IO[bytes], spawning: _Spawning, by_reference: bool) -> None:
    picklers = list(_picklers(by_reference, spawning.far))
    for pickler in picklers:
        file.seek(0)
        file.truncate()
        spawning.drop()
        try:
            return _dump(pickler, call, file, spawning)
        except Exception:  # noqa: BLE001, S112  # __getstate__ is anybody's code; told apart below
            continue
    raise _blame(call, picklers[-1], by_reference, spawning.far)


def _picklers(by_reference: bool, far: bool) -> Iterator[type[pickle.Pickler]]:
    """In the order in which they are tried: by reference where the ranks can import it, else by value."""
    from multiprocessing.reduction import ForkingPickler

    yield _restricted(by_reference, far) if far or not by_reference else ForkingPickler
    try:
        import cloudpickle  # type: ignore[import-untyped,import-not-found,unused-ignore]  # not a dependency
    except ImportError:
        return
    if far:

        class Far(cloudpickle.Pickler):  # type: ignore[misc]  # as above
            def reducer_override(self, value: Any) -> Any:
                _stays(value)
                return super().reducer_override(value)

        yield Far
        return
    from collections import ChainMap

    extra = ForkingPickler._extra_reducers  # type: ignore[attr-defined]  # noqa: SLF001  # live: others register later

    class ByValue(cloudpickle.Pickler):  # type: ignore[misc]  # as above
        # Of the class: the C pickler looks it up once, at its start, and cloudpickle's hides the one that could be set.
        dispatch_table = ChainMap(extra, cloudpickle.Pickler.dispatch_table)  # noqa: RUF012

    yield ByValue


def _restricted(by_reference: bool, far: bool) -> type[pickle.Pickler]:
    """A pickler that refuses names of a main module that the ranks cannot import, and what is of one machine."""
    from multiprocessing.reduction import ForkingPickler

    base: type[pickle.Pickler] = pickle.Pickler if far else ForkingPickler

    class Restricted(base):  # type: ignore[misc,valid-type]  # one of two
        def reducer_override(self, value: Any) -> Any:
            if far:
                _stays(value)
            if not by_reference and isinstance(value, FunctionType | type) and value.__module__ == "__main__":
                raise pickle.PicklingError(f"{value.__qualname__} is defined in a main module that has no file")
            return NotImplemented

    return Restricted


def _stays(value: Any) -> None:
    """Raises for what is of one machine: a queue, a lock, shared memory, a pipe, a manager's proxy."""
    kind = type(value)
    if kind.__module__.partition(".")[0] == "multiprocessing":
        raise pickle.PicklingError(f"a {_type_name(value)} is of one machine, and there are several")


def _dump(pickler: type[pickle.Pickler], value: object, file: IO[bytes], spawning: _Spawning) -> None:
    from multiprocessing import context

    before = context.get_spawning_popen()
    context.set_spawning_popen(spawning)  # type: ignore[arg-type]  # of this thread only; it is one in all that is used
    try:
        pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    finally:
        context.set_spawning_popen(before)


# ── Which one it was ─────────────────────────────────────────────────────────────────────────────────────────────


def _blame(call: tuple[Any, ...], pickler: type[pickle.Pickler], by_reference: bool, far: bool) -> UsageError:
    target, args, kwargs = call
    parts = [("target", target)]
    parts += [(f"args[{index}]", value) for index, value in enumerate(args)]
    parts += [(f"kwargs[{name!r}]", value) for name, value in kwargs.items()]
    for name, value in parts:
        found = _culprit(name, value, pickler, 4, far)
        if found is not None:
            where, part, error = found
            what = where if where == "target" and isinstance(part, FunctionType) else f"{where} ({_type_name(part)})"
            hint = _hint(part, error, pickler, by_reference, far)
            return UsageError(f"{what} cannot travel to the ranks: {error}", hint)
    return UsageError("the arguments cannot travel to the ranks together, though each of them alone can")


def _culprit(
    name: str, value: Any, pickler: type[pickle.Pickler], deep: int, far: bool
) -> tuple[str, Any, Exception] | None:
    """The innermost part of `value` that cannot be pickled, by its name."""
    spawning = _Spawning(far=far)
    try:
        _dump(pickler, value, io.BytesIO(), spawning)
        return None
    except Exception as error:  # noqa: BLE001  # __getstate__ is anybody's code
        found = error
    finally:
        spawning.drop()
    for inner_name, inner in _parts(name, value) if deep else ():
        inner_found = _culprit(inner_name, inner, pickler, deep - 1, far)
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


def _hint(value: object, error: Exception, pickler: type[pickle.Pickler], by_reference: bool, far: bool) -> str | None:
    kind = type(value)
    if far and kind.__module__.partition(".")[0] in ("multiprocessing", "queue", "_queue", "threading", "_thread"):
        return "give the ranks values; what they share over machines they make themselves (torch.distributed, a socket)"
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
    fd = None if spawning.far else getattr(tracker, "_fd", None)  # none: nothing shipped is known to it
    original = process.ORIGINAL_DIR  # type: ignore[attr-defined]  # private
    index = None if fd is None else spawning.duplicate_for_child(fd)
    return {
        "fds": len(spawning.fds),
        "tracker": index,
        # Nothing that asks for it travels to other machines; there it is one of the ranks' own.
        "authkey": os.urandom(32) if spawning.far else bytes(process.current_process().authkey),
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
