"""Fixtures of the tests of runs on disk and live runs."""

from pathlib import Path

import pytest
from tests.runs.jobs import Jobs


@pytest.fixture
def jobs(tmp_path: Path):
    """Starts jobs and asks about them; a home of its own; all of them end with the test."""
    jobs = Jobs(tmp_path)
    yield jobs
    jobs.end()
