"""Every block of code in the pages does what the page says, when it is run; what cannot be is named with its reason."""

from pathlib import Path

import pytest
from tests.docs import played
from tests.docs.blocks import RUN, blocks

TO_RUN = [block for block in blocks() if block.language in RUN and block.no_run is None]


@pytest.mark.slow
@pytest.mark.parametrize("block", TO_RUN, ids=str)
def test_the_block_runs(block, tmp_path: Path, record_property) -> None:
    left = played.run(block, tmp_path / "sandbox")
    for command in left:
        record_property("only read", command)
