"""The tree of `make soak` for some seconds: nothing is called a failure, whoever ends in it. What it costs is measured there."""

from pathlib import Path

import pytest
from tests.soak.__main__ import soak


@pytest.mark.slow
def test_a_restless_tree_is_no_failure(tmp_path: Path) -> None:
    soaked = soak(tmp_path, 6, 300, 100)

    assert (soaked.outcome, soaked.status, soaked.joined) == ("interrupted", 0, 8), (tmp_path / "err").read_text()
    assert soaked.reported == 0
