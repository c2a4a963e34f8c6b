import pytest
from tests.inside.harness import Supervisor


@pytest.fixture
def supervisor():
    with Supervisor() as made:
        yield made
