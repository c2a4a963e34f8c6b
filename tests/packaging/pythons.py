"""The CPythons of this machine: on PATH, of pyenv and of uv. Each version once; free-threaded builds are versions of their own.

`RANKGUARD_PYTHONS=/path/to/python:…` names others.
"""

import glob
import json
import os
import subprocess
from functools import cache
from typing import NamedTuple

ASK = """
import json, sys, sysconfig
import ensurepip, venv
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2] + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""),
    "full": sys.version.split()[0],
    "name": sys.implementation.name,
    "final": sys.version_info.releaselevel == "final",
    "path": sys._base_executable,
}))
"""
EXPECTED = ("3.11", "3.12", "3.13", "3.14", "3.14t")


class Python(NamedTuple):
    """One interpreter that can make a virtual environment."""

    path: str
    version: str
    full: str


@cache
def pythons() -> dict[str, Python]:
    """Version → the first one that is found; 3.11 and newer."""
    places = os.environ.get("RANKGUARD_PYTHONS", "").split(":") if os.environ.get("RANKGUARD_PYTHONS") else []
    for folder in os.environ.get("PATH", "").split(":"):
        places += sorted(glob.glob(f"{folder}/python3.[0-9]*"), key=len)
    home = os.path.expanduser("~")
    for root in (os.environ.get("PYENV_ROOT", f"{home}/.pyenv/versions"), f"{home}/.pyenv/versions"):
        places += glob.glob(f"{root}/*/bin/python") + glob.glob(f"{root}/versions/*/bin/python")
    places += glob.glob(f"{home}/.local/share/uv/python/cpython-3*/bin/python3")
    found: dict[str, Python] = {}
    for path in dict.fromkeys(os.path.realpath(place) for place in places if os.access(place, os.X_OK)):
        try:
            said = subprocess.run([path, "-I", "-c", ASK], capture_output=True, timeout=20, cwd="/", check=True).stdout
            told = json.loads(said)
        except (OSError, ValueError, subprocess.SubprocessError):
            continue  # a script, another Python, one without venv
        number = tuple(map(int, told["version"].rstrip("t").split(".")))
        if told["name"] == "cpython" and told["final"] and number >= (3, 11):
            found.setdefault(told["version"], Python(told["path"], told["version"], told["full"]))  # not a shim's path
    return found
