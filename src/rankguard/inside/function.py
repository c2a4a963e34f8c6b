"""In the rank: runs a function that the caller of `launch` has shipped (`launchers/function.py` is the other half).

The shipment is a memfd that all ranks share, so it is mapped, never read through its one offset: the pickled call, the
pickled preparation, and the length of the latter in its last eight bytes. The preparation is what
`multiprocessing.spawn.prepare` would be given; it is applied before the call is unpickled.

Not multiprocessing's own `spawn.prepare`: that replaces the default start method even where the caller has set none.
"""

import os
import sys

__rankguard_frame__ = True

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LENGTH = 8

_first_inherited = 0
_old_main_modules: "list[Any]" = []


class Inherited:
    """A descriptor in a pickle: what `DupFd` returns while a shipment is made. `detach` gives the rank's own number."""

    def __init__(self, index: int) -> None:
        self.index = index

    def detach(self) -> int:
        """Not closed or used up: each rank has its own table, and multiprocessing's users close what they detach."""
        return _first_inherited + self.index


def run(fd: int, report: "Callable[..., None]") -> None:
    """Calls the function shipped in `fd`; the descriptors that travel with it are `fd + 1` and up."""
    body, preparation = _open(fd)
    sys.path = list(preparation["sys_path"])
    try:
        # The same file under its own name, where the pickle looks for it: this copy has none.
        import rankguard.inside.function as ours  # noqa: PLW0406
    except ImportError:
        sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
        import rankguard.inside.function as ours  # noqa: PLW0406
    target, args, kwargs = ours.receive(fd, body, preparation)
    del body
    target(*args, **kwargs)


def _open(fd: int) -> "tuple[memoryview, dict[str, Any]]":
    import mmap
    import pickle

    # Private: a shared mapping of a write-sealed memfd is refused before Linux 6.7, a read-only one, too.
    whole = memoryview(mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ))
    os.close(fd)
    start = len(whole) - LENGTH - int.from_bytes(whole[-LENGTH:], "little")
    return whole[:start], pickle.loads(whole[start:-LENGTH])  # noqa: S301  # from the process that started us


def receive(fd: int, body: memoryview, preparation: "dict[str, Any]") -> "tuple[Any, tuple[Any, ...], dict[str, Any]]":
    """The call, in a process made ready for it."""
    global _first_inherited
    _first_inherited = fd + 1
    for inherited in range(fd + 1, fd + 1 + preparation["fds"]):
        os.set_inheritable(inherited, False)  # else a child of the rank keeps the pipes of its parent open
    import pickle
    from multiprocessing import process

    import rankguard.inside
    from rankguard.inside.this_rank import this_rank

    rank = this_rank()
    current = process.current_process()
    current._inheriting = True  # type: ignore[attr-defined]  # noqa: SLF001  # multiprocessing, too, refuses to start processes now
    rankguard.inside.importing_main = True
    try:
        _prepare(preparation, fd, f"rank-{rank.rank}")
        target, args, kwargs = pickle.loads(body)  # noqa: S301  # from the process that started us
    finally:
        rankguard.inside.importing_main = False
        del current._inheriting  # type: ignore[attr-defined]  # noqa: SLF001
    return target, (rank, *args), kwargs


def _prepare(preparation: "dict[str, Any]", fd: int, name: str) -> None:
    """`multiprocessing.spawn.prepare` and the tracker's part of `spawn_main`."""
    from multiprocessing import process

    current = process.current_process()
    current.name, current.authkey = name, preparation["authkey"]
    if preparation["tracker"] is not None:
        from multiprocessing import resource_tracker

        resource_tracker._resource_tracker._fd = fd + 1 + preparation["tracker"]  # type: ignore[attr-defined]  # noqa: SLF001
    if preparation["log_level"] is not None:
        from multiprocessing import util

        if preparation["log_to_stderr"]:
            util.log_to_stderr()
        util.get_logger().setLevel(preparation["log_level"])
    sys.argv = preparation["argv"]
    process.ORIGINAL_DIR = preparation["orig_dir"]  # type: ignore[attr-defined]  # private
    if preparation["start_method"] is not None:
        from multiprocessing import set_start_method

        set_start_method(preparation["start_method"], force=True)
    if preparation["main_name"] is not None or preparation["main_path"] is not None:
        _import_main(preparation["main_name"], preparation["main_path"])


def _import_main(name: "str | None", path: "str | None") -> None:
    """`_fixup_main_from_name` and `_fixup_main_from_path`."""
    import runpy

    _old_main_modules.append(sys.modules["__main__"])
    main = type(sys)("__mp_main__")
    if name is not None:
        content = runpy.run_module(name, run_name="__mp_main__", alter_sys=True)
    else:
        content = runpy.run_path(str(path), run_name="__mp_main__")
    main.__dict__.update(content)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main
