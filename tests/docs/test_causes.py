"""docs/causes.md is what the tables make of it, and no kind of cause is without its row.

`make docs`, or `UPDATE_GOLDEN=1 pytest tests/docs/test_causes.py`, writes it anew.
"""

import json
import os
import re
from importlib.resources import files
from types import ModuleType

import pytest
from tests.makers import maker_of

from rankguard.diagnosis.kinds import FAMILIES
from rankguard.model import Family


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    return maker_of("causes")


def test_every_kind_has_its_row(maker: ModuleType) -> None:
    """Of what is found, what is planned, and what the published schema tells of: the same kinds."""
    schema = json.loads(files("rankguard").joinpath("schema/verdict-1.json").read_text())
    described = schema["$defs"]["cause"]["properties"]["kind"]["description"].partition(": ")[2]

    assert set(maker.KINDS) == set(FAMILIES)
    assert set(maker.KINDS) == set(re.findall(r"[a-z-]+", described))


def test_no_row_is_empty(maker: ModuleType) -> None:
    assert [kind for kind, told in maker.KINDS.items() if not all(told)] == []


def test_the_page_is_up_to_date(maker: ModuleType) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        maker.PAGE.write_text(maker.page())
    assert maker.page() == maker.PAGE.read_text()


def test_every_family_has_its_heading(maker: ModuleType) -> None:
    headings = re.findall(r"^## (\w+)$", maker.PAGE.read_text(), re.MULTILINE)
    assert headings == [*(family.value for family in Family), "Xids", "Fingerprint"]
