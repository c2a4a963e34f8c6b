"""Under an editor's debugger (`python -m debugpy … -m rankguard run --debug 0 …`): it follows the debug rank.

debugpy follows the processes that a program starts by rewriting their commands (`_pydev_bundle/pydev_monkey.py`). Our
warden and supervisor have to start as they are, so they go past that (`client.py`); the debug rank is what an editor
wants to follow. Nothing of debugpy is imported here: either it is there already, or nobody debugs us.
"""

import sys
from collections.abc import Sequence
from typing import Any


def followed(argv: Sequence[str]) -> tuple[str, ...]:
    """The command of a Python process with what makes it call the editor; empty when no editor wants to follow it."""
    setup = _pydevd_setup()
    patch: Any = getattr(sys.modules.get("_pydev_bundle.pydev_monkey"), "patch_args", None)
    if not setup or not setup.get("multiprocess") or patch is None:  # `"subProcess": false` in its configuration
        return ()
    patched = tuple(patch(list(argv)))
    return patched if patched != tuple(argv) else ()


def _pydevd_setup() -> dict[str, Any] | None:
    """The options of the debugger that runs us; None when there is none."""
    holder = getattr(sys.modules.get("pydevd"), "SetupHolder", None)
    setup = getattr(holder, "setup", None)
    return setup if isinstance(setup, dict) else None
