"""The rows of the table, a file each: `run(setting)` gives its lines. The docstring says what is measured and how."""

from importlib import import_module
from types import ModuleType

FILES = {
    "a": "a_loading",
    "b": "b_run",
    "c": "c_barrier",
    "d": "d_restart",
    "e": "e_nothing",
    "f": "f_thousand",
    "g": "g_idle",
    "h": "h_culprit",
    "i": "i_fact",
    "j": "j_output",
}

PEERS = {
    "a": ("torch", "sglang"),
    "b": ("torch", "mpirun"),
    "c": ("torch",),
    "d": ("torch",),
    "e": ("torch", "mpirun"),
    "g": ("torch", "mpirun"),
    "h": ("torch",),
    "j": ("torch",),
}
"""Which peers a row has."""


def row(letter: str) -> ModuleType:
    """The module of a row; each is imported when it is its turn."""
    return import_module(f"bench.rows.{FILES[letter]}")
