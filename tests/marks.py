"""`slowly`: the rest of what a test tries to the end. Some of each kind are in `make test`, all of them in CI."""

import pytest


def slowly(*values: object) -> list[object]:
    """Parameters for `make test-slow` alone; a tuple is one parameter of several names."""
    return [
        pytest.param(*value, marks=pytest.mark.slow)
        if isinstance(value, tuple)
        else pytest.param(value, marks=pytest.mark.slow)
        for value in values
    ]
