"""The page of a run that lives: it follows each change, in place; a lost connection heals; at the end it keeps what it has."""

import os
import signal
from pathlib import Path
from typing import Any

from tests.browser.conftest import until
from tests.page.served import Served


def url(run: Served) -> str:
    return f"http://127.0.0.1:{run.port}/"


def heading(page: Any, *words: str) -> None:
    """Wait until the heading says so."""
    until(
        page,
        "words => words.every(word => document.querySelector('h1') && document.querySelector('h1').textContent.includes(word))",
        list(words),
    )


def sign(page: Any, rank: int, word: str) -> None:
    page.wait_for_selector(f'.tile[data-rank="{rank}"][data-sign="{word}"]')


def over(page: Any) -> str:
    page.wait_for_selector('#banner[data-kind="over"]:not([hidden])')
    return str(page.locator("#banner").inner_text())


def test_start_ready_end(read: Any, tmp_path: Path) -> None:
    with Served(tmp_path, 3, "--ready-timeout", "60") as run:
        page = read(url(run))
        heading(page, "0 of 3")
        assert page.title().startswith("0/3 ready")

        run.tell(1, "status warming up")
        until(page, "() => document.querySelector('.tile[data-rank=\"1\"]').textContent.includes('warming up')")
        run.tell(1, "ready")
        sign(page, 1, "ready")
        heading(page, "1 of 3")
        assert page.locator(".meter").get_attribute("aria-valuenow") == "1"
        run.tell(0, "ready")
        run.tell(2, "ready")
        page.wait_for_selector('#verdict[data-state="ready"]')
        assert page.locator(".meter").count() == 0
        assert page.locator("#told").inner_text()  # whoever listens is told
        page.locator('.tile[data-rank="0"]').click()
        assert "Log" not in page.locator("#rank dt").all_inner_texts()  # it has printed nothing: there is no file

        for rank in range(3):
            run.tell(rank, "exit 0")
        assert run.end() == 0
        said = over(page)
        assert "The run is over (succeeded)" in said
        assert said.endswith(f"rankguard report {run.run_dir}")  # by its id it is not found: it is in no home
        assert page.locator(".tile[data-sign=finished]").count() == 3
        assert page.locator("#clock .over").inner_text() == "run over"


def test_a_death(read: Any, tmp_path: Path) -> None:
    with Served(tmp_path, 4, "--ready-timeout", "60", "--grace", "30") as run:
        page = read(url(run))
        for rank in range(4):
            run.tell(rank, "ready")
        page.wait_for_selector('#verdict[data-state="ready"]')
        run.tell(0, "deaf")  # so that the job goes on being stopped until we say so
        until(page, "() => document.querySelector('.tile[data-rank=\"0\"]').textContent.includes('deaf')")
        run.tell(2, "exit 3")

        heading(page, "rank 2 of 4", "3")
        sign(page, 2, "culprit")
        sign(page, 0, "stopping")
        assert page.locator("#verdict").get_attribute("data-state") == "failed"
        assert "rank 2 of 4" in page.locator("#told").inner_text()
        run.tell(0, "exit 0")
        assert run.end() == 3
        assert "The run is over (failed)" in over(page)
        heading(page, "rank 2 of 4")
        assert page.locator(".deaths > li").first.get_attribute("data-sign") == "culprit"
        assert "rankguard report" in page.locator("#banner").inner_text()


ALIVE = """
import sys, threading, time
import rankguard
this, told = rankguard.this_rank(), threading.Event()

def beat():
    while not told.wait(0.02):
        this.alive()

threading.Thread(target=beat, daemon=True).start()
for line in open(f"{sys.argv[1]}/rank-{this.rank}.fifo"):
    told.set()
    this.ready()
"""
"""A rank that gives signs of life until it is told to be ready: whatever a browser needs to show that."""


def test_a_stall(read: Any, tmp_path: Path) -> None:
    options = ("--ready-timeout", "60", "--stall-timeout", "2", "--start", "warm")
    with Served(tmp_path, 2, *options, program=ALIVE) as run:
        page = read(url(run))
        run.tell(0, "ready")
        run.tell(1, "ready")

        heading(page, "no sign of progress for 2 s")
        assert run.end() == 124
        over(page)
        assert page.locator(".chip.kind").first.inner_text() == "stall"
        assert page.locator(".stack").count() > 0


def test_a_restart(read: Any, tmp_path: Path) -> None:
    with Served(tmp_path, 2, "--ready-timeout", "60", "--max-restarts", "1") as run:
        page = read(url(run))
        run.tell(0, "ready")
        run.tell(1, "ready")
        page.wait_for_selector('#verdict[data-state="ready"]')
        run.tell(1, "exit 7")

        until(
            page,
            "() => document.querySelector('.chips') && document.querySelector('.chips').textContent.includes('attempt 2')",
        )
        sign(page, 1, "starting")
        assert (
            "exit code 7" in page.locator("#attempts tbody tr").first.inner_text()
            or "exit" in page.locator("#attempts tbody tr").first.inner_text()
        )
        run.tell(0, "ready")
        run.tell(1, "ready")
        page.wait_for_selector('#verdict[data-state="ready"]')
        run.tell(0, "exit 0")
        run.tell(1, "exit 0")
        assert run.end() == 0
        over(page)
        assert page.locator("#attempts tbody tr").count() == 2


def test_updates_leave_the_reader_alone(read: Any, tmp_path: Path) -> None:
    """What is selected, focused, opened, scrolled to and typed is still there after many changes, and no element was swapped."""
    with Served(tmp_path, 4, "--ready-timeout", "60") as run:
        page = read(url(run))
        page.set_viewport_size({"width": 1280, "height": 400})
        sign(page, 2, "starting")
        page.locator('.tile[data-rank="2"]').click()
        page.wait_for_selector("#rank")
        run.tell(2, "status begins")
        page.locator("#signs summary").click()
        page.locator('.tile[data-rank="3"]').focus()
        page.evaluate("""() => {
            scrollTo(0, 200);
            document.querySelectorAll(".tile, #rank, h1, #signs details").forEach((one) => (one.mine = true));
            const range = document.createRange();
            range.selectNodeContents(document.querySelector("#ranks h2"));
            getSelection().removeAllRanges();
            getSelection().addRange(range);
        }""")
        scrolled = page.evaluate("scrollY")
        for number in range(5):
            run.tell(2, f"status step {number}")
            until(page, "word => document.querySelector('#rank').textContent.includes(word)", f"step {number}")
        run.tell(1, "ready")
        sign(page, 1, "ready")

        assert (
            page.evaluate(
                "[...document.querySelectorAll('.tile, #rank, h1, #signs details')].filter((one) => !one.mine).length"
            )
            == 0
        )
        assert page.evaluate("document.activeElement.dataset.rank") == "3"
        assert page.evaluate("getSelection().toString()") == "Ranks"
        assert page.evaluate("document.querySelector('#signs details').open")
        assert page.evaluate("scrollY") == scrolled


def test_output_grows_in_place(read: Any, tmp_path: Path) -> None:
    program = """
import sys
for line in open(f"{sys.argv[1]}/rank-0.fifo"):
    for number in range(int(line)):
        print("line", number, flush=True)
    print("all of them", line.strip(), flush=True)
"""
    with Served(tmp_path, 1, program=program) as run:
        page = read(url(run))
        run.tell(0, "50")
        until(
            page,
            "() => document.querySelector('#output .log') && document.querySelector('#output .log').textContent.includes('all of them 50')",
        )
        at_end = "(box => box.scrollHeight - box.scrollTop - box.clientHeight)(document.querySelector('#output .log'))"
        assert page.evaluate(at_end) < 4

        page.evaluate("document.querySelectorAll('#output .log > div').forEach((line) => (line.mine = true))")
        run.tell(0, "60")
        until(page, "() => document.querySelector('#output .log').textContent.includes('all of them 60')")
        assert page.evaluate(at_end) < 4
        assert (
            page.evaluate("[...document.querySelectorAll('#output .log > div')].filter((line) => line.mine).length")
            == 51
        )

        page.evaluate("document.querySelector('#output .log').scrollTop = 0")
        run.tell(0, "5")
        until(
            page,
            "() => document.querySelector('#output .log').textContent.includes('all of them 5\\n') || [...document.querySelectorAll('#output .log > div')].some((line) => line.textContent === 'all of them 5')",
        )
        assert page.evaluate("document.querySelector('#output .log').scrollTop") == 0


def test_a_lost_connection_heals(read: Any, tmp_path: Path) -> None:
    with Served(tmp_path, 2, "--ready-timeout", "60") as run:
        page = read(url(run), cuts=True)
        heading(page, "0 of 2")
        page.context.set_offline(True)
        page.wait_for_selector('#banner[data-kind="lost"]:not([hidden])')
        assert "Connection lost" in page.locator("#banner").inner_text()
        assert "not connected" in page.locator("#clock").inner_text()
        heading(page, "0 of 2")  # what is known stays

        run.tell(0, "ready")
        run.until(fact="Ready", rank=0)
        page.context.set_offline(False)
        page.wait_for_selector("#banner", state="hidden")
        heading(page, "1 of 2")
        assert "live" in page.locator("#clock").inner_text()


def test_a_page_server_that_is_killed_is_followed_by_another(read: Any, tmp_path: Path) -> None:
    with Served(tmp_path, 2, "--ready-timeout", "60") as run:
        page = read(url(run), cuts=True)
        run.tell(0, "ready")
        heading(page, "1 of 2")
        first = run.server()
        os.kill(first, signal.SIGKILL)

        run.tell(1, "status after it")
        until(page, "() => document.querySelector('.tile[data-rank=\"1\"]').textContent.includes('after it')")
        assert run.server() != first
        run.tell(1, "ready")
        page.wait_for_selector('#verdict[data-state="ready"]')
        page.wait_for_selector("#banner", state="hidden")
