"""Ranks that print what would do harm, were it taken for anything but text: in a report, and live."""

import re
from pathlib import Path
from typing import Any

from tests.browser.conftest import until
from tests.browser.runs import HOSTILE
from tests.page.served import Served

FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
ATTACK = '<script>window.harmed=1</script></script><!-- <img src=x onerror="window.harmed=1"> & &lt;b&gt; ]]>'


def unharmed(page: Any) -> None:
    assert page.evaluate(
        "[window.harmed, document.images.length, document.querySelectorAll('main script, main b script').length]"
    ) == [None, 0, 0]
    assert FORBIDDEN.findall(page.evaluate("document.body.textContent")) == []
    assert FORBIDDEN.findall(page.title()) == []
    attributes = (
        "[...document.querySelectorAll('*')].flatMap(one => [...one.attributes].map(({value}) => value)).join(' ')"
    )
    assert FORBIDDEN.findall(page.evaluate(attributes)) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_report(read: Any, runs: Any) -> None:
    page = read(runs.report("hostile"))

    assert ATTACK in page.locator("h1").inner_text()
    log = page.locator("#output .log").first.inner_text()
    assert ATTACK in log
    assert "the last line 😀" in log
    assert "right <U+202E>to left<U+202C>" in log
    assert "red" in log
    unharmed(page)

    page.fill("#search", "<script>")
    assert page.locator("#output mark").count() > 0
    unharmed(page)
    page.locator(".tile").first.click()
    unharmed(page)


def test_live(read: Any, tmp_path: Path) -> None:
    program = HOSTILE.replace("time.sleep(0.2)", "this.ready(); time.sleep(600)")
    with Served(tmp_path, 2, "--ready-timeout", "60", program=program) as run:
        page = read(f"http://127.0.0.1:{run.port}/")

        until(
            page,
            "() => document.querySelector('#output .log') && document.querySelector('#output .log').textContent.includes('the last line')",
        )
        assert ATTACK in page.locator("#output .log").first.inner_text()
        page.wait_for_selector(".tile[data-sign=ready]")
        page.locator(".tile").first.click()
        unharmed(page)
