"""docs/scenes.md holds what docs/make_scenes.py recorded, six scenes of 80 columns; one is recorded again here."""

import re
from types import ModuleType

import pytest
from tests.makers import maker_of


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    return maker_of("scenes")


def test_the_page_holds_the_scenes(maker: ModuleType) -> None:
    assert maker.page() == maker.PAGE.read_text()
    assert {path.stem for path in maker.SCENES.iterdir()} == set(maker.SCENE)
    assert len(maker.SCENE) >= 6


def test_they_fit_80_columns_and_name_nothing_of_the_machine_they_were_made_on(maker: ModuleType) -> None:
    for path in maker.SCENES.iterdir():
        text = path.read_text()
        assert [line for line in text.splitlines() if len(line) > 80] == [], path.name
        assert re.findall(r"Traceback.*rankguard|/root|/work|pytest", text) == [], path.name
        assert re.findall(r"\x1b|\x08|\t", text) == [], path.name


def test_a_start_still_looks_like_that(maker: ModuleType) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("pyte")
    recorded = (maker.SCENES / "start.txt").read_text()

    now = maker.SCENE["start"]()

    assert _comparable(now) == _comparable(recorded)


def _comparable(scene: str) -> str:
    """Without times, and without memory: this machine may be slow, busy with others, and unable to tell its memory."""
    scene = re.sub(
        r"^note: (.|\n)*?(?=^rankguard: exit)", "", scene, flags=re.MULTILINE
    )  # of what others leave meanwhile
    scene = re.sub(r" · memory .*", "", scene)
    scene = re.sub(r"\+?\d+(\.\d+)? m?s\b", "N s", scene)
    return re.sub(r" +\d+\.\d+$| +silent$| +N s$", "", scene, flags=re.MULTILINE)
