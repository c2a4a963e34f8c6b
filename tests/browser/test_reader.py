"""Whoever has no mouse, does not see, sees no colours, has a small screen or wants it on paper."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.page.made import ended, looks, run_of, spec_of
from tests.page.served import Served

import rankguard
from rankguard.facts import JobStarted, Spawned, StatusTold

AXE = Path(__file__).parents[2] / ".venv-page" / "package" / "axe.min.js"


def focused(page: Any) -> str:
    return str(
        page.evaluate(
            "document.activeElement.dataset.rank || document.activeElement.id || document.activeElement.className"
        )
    )


def test_keyboard(read: Any, runs: Any) -> None:
    page = read(runs.report("hang"))

    page.keyboard.press("Tab")
    assert focused(page) == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#verdict"

    page.locator('.tile[tabindex="0"]').focus()
    assert focused(page) == "2"  # the culprit
    for key, rank in (("ArrowRight", "3"), ("ArrowLeft", "2"), ("End", "7"), ("Home", "0")):
        page.keyboard.press(key)
        assert focused(page) == rank
    assert page.locator('.tile[tabindex="0"]').count() == 1
    page.keyboard.press("Enter")
    assert page.locator("#rank h3").inner_text().startswith("rank 0")
    assert page.locator('.tile[data-rank="0"]').get_attribute("aria-pressed") == "true"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Escape")
    assert page.locator("#rank").count() == 0
    assert focused(page) == "0"


def test_keyboard_in_a_grid_of_several_rows(read: Any, runs: Any) -> None:
    page = read(runs.report("many64"))
    page.locator('.tile[data-rank="0"]').focus()

    page.keyboard.press("ArrowDown")
    below = int(focused(page))
    boxes = [page.locator(f'.tile[data-rank="{rank}"]').bounding_box() for rank in (0, below)]
    assert boxes[0]["x"] == boxes[1]["x"]
    assert boxes[0]["y"] < boxes[1]["y"]
    page.keyboard.press("ArrowUp")
    assert focused(page) == "0"


def test_search(read: Any, runs: Any) -> None:
    page = read(runs.report("hang"))

    page.keyboard.press("/")
    assert focused(page) == "search"
    page.keyboard.type("loss 0.1")
    assert page.locator(".hits").inner_text() == "1 of 5"
    assert page.locator("#output mark").count() == 5
    page.keyboard.press("Enter")
    assert page.locator(".hits").inner_text() == "2 of 5"
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Shift+Enter")
    assert page.locator(".hits").inner_text() == "5 of 5"
    assert page.locator("#output mark[data-now]").count() == 1
    assert page.locator(".elsewhere button").count() == 7  # every other rank has it, too
    page.locator(".elsewhere button").first.click()
    assert page.locator("#output select").input_value() == "0"
    page.locator("#search").focus()
    page.keyboard.press("Escape")
    assert page.locator("#output mark").count() == 0


def test_a_rank_is_chosen(read: Any, runs: Any) -> None:
    page = read(runs.report("many64"))

    page.locator('.tile[data-rank="5"]').click()
    assert "SIGTERM" in page.locator("#rank").inner_text()
    assert page.locator("#output select").input_value() == "5"
    page.locator("#rank [data-act=output]").click()
    assert page.locator("#output").bounding_box()["y"] < 800
    page.select_option("#output select", "37")
    assert "step 12" in page.locator("#output .log").first.inner_text()


def test_colours_are_kept(read: Any, tmp_path: Path) -> None:
    with Served(tmp_path, 1) as run:
        page = read(f"http://127.0.0.1:{run.port}/", color_scheme="dark")
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(ground)
        page.locator("#theme").click()
        light = page.evaluate(ground)
        assert light != dark
        assert page.locator("#theme").inner_text() == "light"
        page.reload()
        page.wait_for_selector("html[data-drawn]")
        assert page.evaluate(ground) == light
        page.locator("#theme").click()
        assert page.evaluate(ground) == dark


@pytest.mark.parametrize("name", ["hang", "storm", "many256"])
def test_narrow(read: Any, runs: Any, name: str) -> None:
    page = read(runs.report(name), viewport={"width": 360, "height": 740})

    assert page.evaluate("document.documentElement.scrollWidth") == 360
    todo, facts = (page.locator(f"#verdict {part}").bounding_box() for part in (".todo", ".facts"))
    assert todo["y"] + todo["height"] <= facts["y"]
    page.locator(".tile[data-sign=culprit]").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_long_words_on_a_narrow_screen(read: Any, tmp_path: Path) -> None:
    """A status, the name of a limit, a warning, advice: names of real systems have no blank in them."""
    folder, page, word = tmp_path / "run", tmp_path / "page.html", "_".join(["kubepods"] * 20)
    start = [
        JobStarted(1000.0, 1.79e9),
        Spawned(1000.1, 0, 5000),
        Spawned(1000.1, 1, 5001),
        StatusTold(1000.2, 0, word),
    ]
    run_of(folder, spec_of(2, folder), [*start, *ended(2, 1030.0)])
    looks(folder, 2, 30)
    memory, verdict = folder / "memory.jsonl", folder / "verdict.json"
    memory.write_text(memory.read_text().replace("memory.max of /job", word))
    told = json.loads(verdict.read_text())
    told["warnings"], told["retry"]["because"] = [word], word
    verdict.write_text(json.dumps(told))
    rankguard.read_run(folder).html(page)

    shown = read(page, viewport={"width": 360, "height": 740})
    for part in ("#startup .keys", "#memory .lead", ".warnings", ".todo"):
        assert word in shown.locator(part).inner_text()
    assert shown.evaluate("document.documentElement.scrollWidth") == 360


def test_nothing_moves_for_who_wants_that(read: Any, runs: Any) -> None:
    page = read(runs.report("hang"), reduced_motion="reduce")

    moving = "[...document.querySelectorAll('*')].filter((one) => parseFloat(getComputedStyle(one).transitionDuration) > 0).length"
    assert page.evaluate(moving) == 0


def test_paper(read: Any, runs: Any) -> None:
    page = read(runs.report("hang"), color_scheme="dark")
    page.emulate_media(media="print")

    assert page.locator("#nav").is_hidden()
    assert page.locator("#theme").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_every_state_has_a_sign_of_its_own(read: Any, runs: Any) -> None:
    page = read(runs.report("hang"))

    shapes = page.evaluate(
        "Object.keys(rg.SAYS).map((name) => { const one = document.getElementById('i-' + name); return one && one.innerHTML; })"
    )
    assert None not in shapes
    assert len(set(shapes)) == len(shapes)


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not there (make test-page gets it from npm)")
@pytest.mark.parametrize(
    ("name", "scheme"),
    [("hang", "light"), ("storm", "dark"), ("many64", "light"), ("success", "dark"), ("hang", "dark")],
)
def test_accessible(read: Any, runs: Any, name: str, scheme: str) -> None:
    page = read(runs.report(name), color_scheme=scheme)
    if page.locator(".tile[data-sign=culprit]").count():
        page.locator(".tile[data-sign=culprit]").click()
    page.evaluate(AXE.read_text())

    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    told = [(one["id"], [node["html"][:160] for node in one["nodes"][:3]]) for one in found["violations"]]
    assert told == [], json.dumps(told, indent=1)
    assert len(found["passes"]) > 20
