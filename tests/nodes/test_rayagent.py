"""Which rankguard a node has, as the holder of its agent finds it there. Ray itself: `make test-ray`."""

import os
import sys

import pytest

from rankguard._version import __version__
from rankguard.nodes.rayagent import ours

AGENT = ["-P", "-m", "rankguard", "agent"]
HERE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(sys.modules[ours.__module__].__file__))))


@pytest.fixture
def broken(tmp_path):
    """An environment in which rankguard cannot be imported as it is installed."""
    (tmp_path / "rankguard").mkdir()
    (tmp_path / "rankguard" / "__init__.py").write_text("raise ImportError('not here')")
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def test_the_coordinators_python_is_there():
    assert ours(sys.executable, "/no/such/folder", __version__, dict(os.environ)) == ([sys.executable, *AGENT], {}, "")


def test_only_the_workers_python_is_there():
    found = ours("/no/such/python", "/no/such/folder", __version__, dict(os.environ))
    assert found == ([sys.executable, *AGENT], {}, "")


def test_the_coordinators_package_can_be_read_here(broken):
    found = ours(sys.executable, HERE, __version__, broken)
    assert found == ([sys.executable, *AGENT], {"PYTHONPATH": f"{HERE}{os.pathsep}{broken['PYTHONPATH']}"}, "")


def test_it_is_not_there(broken):
    command, added, refused = ours(sys.executable, "/no/such/folder", __version__, broken)
    assert (command, added, refused) == (None, {}, f"`{sys.executable}` has ImportError: not here")


def test_another_version_is_there():
    command, _, refused = ours(sys.executable, "/no/such/folder", "9.9", dict(os.environ))
    assert (command, refused) == (None, f"`{sys.executable}` has {__version__}")
