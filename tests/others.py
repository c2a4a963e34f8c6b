"""Another user, one without any rights, who runs this checkout."""

import functools
import os
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src"
STRANGER = 54321
"""A uid that /etc/passwd does not know, as OpenShift gives them."""
OPEN_ROOT = ("sh", str(Path(__file__).with_name("open_root.sh")))
"""For a mount namespace of one's own, so that others come to what lies in root's home, as Python may."""


def as_user(number: int) -> tuple[str, ...]:
    """The words before a command of that user and group. Root only."""
    user = ("setpriv", "--reuid", str(number), "--regid", str(number), "--clear-groups")
    return ("unshare", "--mount", *OPEN_ROOT, *user)


AS_STRANGER = as_user(STRANGER)
_STARTS_ITSELF = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import rankguard'], check=True)"


@functools.cache
def why_no_stranger() -> str | None:
    """Why another user cannot run this checkout; null when they can, or when this user cannot become another one.

    It starts itself, as rankguard does: whoever was root a moment ago comes through a closed folder to a first Python
    there, and that one comes to none.
    """
    if os.geteuid() != 0:
        return None
    words = [*AS_STRANGER, sys.executable, "-c", _STARTS_ITSELF]
    ended = subprocess.run(words, env={"PYTHONPATH": str(SRC)}, cwd="/", capture_output=True, check=False)
    return None if ended.returncode == 0 else "this checkout, or its Python, is closed to other users"
