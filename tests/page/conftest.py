"""Fixtures of the tests of the page server."""

from tests.run.conftest import ranks

__all__ = ["ranks"]
