"""Fixtures of the tests of a job as a service."""

from tests.run.conftest import ranks

__all__ = ["ranks"]
