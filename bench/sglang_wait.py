"""SGLang's `_wait_for_scheduler_ready`, called as its published wheel ships it.

The function stands in `sglang/srt/entrypoints/engine.py` and uses nothing but the standard library, but its module
imports torch, msgspec, uvloop, zmq and most of sglang. While that file is executed, every import of something that is
not in the standard library is answered with an empty stand-in; the file itself, and so the function, is untouched.
"""

import asyncio
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any


def wait_function(folder: Path) -> Callable[..., Any]:
    """`_wait_for_scheduler_ready` of the wheel that is unpacked in `folder`."""
    stubs = _Stubs()
    sys.meta_path.insert(0, stubs)
    try:
        spec = importlib.util.spec_from_file_location("sglang_engine", folder / "sglang/srt/entrypoints/engine.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look there
        spec.loader.exec_module(module)
    finally:
        sys.meta_path.remove(stubs)
        asyncio.set_event_loop_policy(None)
        for name in stubs.made:
            sys.modules.pop(name, None)
    return module._wait_for_scheduler_ready


class _Anything(type):
    """The type of whatever is imported from a stand-in: has every attribute, can be a base, a decorator, a subscript."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return asyncio.DefaultEventLoopPolicy if name == "EventLoopPolicy" else _Anything(name, (), {})

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) else super().__call__()

    def __getitem__(cls, _key: Any) -> Any:
        return cls

    def __or__(cls, _other: Any) -> Any:
        return cls

    __ror__ = __or__


class _StandIn(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(_Anything("stub", (), {}), name)


class _Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self) -> None:
        self.made: list[str] = []

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] in sys.stdlib_module_names:
            return None
        self.made.append(name)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass
