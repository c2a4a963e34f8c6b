"""A real browser: Debian's Chromium without a window, driven by Playwright; and what holds for every page that it opens.

Nothing but the page's own host is asked for anything, the console says nothing, no policy is violated and no script
fails: each page is asked about that when its test is over, whatever the test was about.
"""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.browser.runs import Runs

VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective + " " + event.blockedURI));
"""
UNREACHED = "Failed to load resource: net::ERR_"
"""What Chromium itself writes for an answer that never came: expected by tests that cut the connection, and of a page whose
run is over, since the server goes with its run and a question may be on its way just then.
"""
PATIENCE_MS = 100_000
"""For a machine on which others work, too; Playwright's own is 30 seconds."""
GONE = "rg.state.over || rg.state.lost !== null"


UNTIL = """(arg) => new Promise((done, fail) => {
    const holds = %s;
    const look = () => { if (holds(arg)) { seen.disconnect(); done(); } };
    const seen = new MutationObserver(look);
    seen.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
    setTimeout(() => fail(new Error("not in time: " + holds + " " + JSON.stringify(arg) + "\\n" + document.body.innerText.slice(0, 2000))), %d);
    look();
})"""


def until(page: Any, condition: str, arg: Any = None) -> None:
    """Wait until a function (its source) is true of the page, which is looked at after each of its changes. Playwright's
    own `wait_for_function` evaluates a string in the page, which the page's policy forbids.
    """
    page.evaluate(UNTIL % (condition, PATIENCE_MS), arg)


class Reader:
    """One page in a browser context of its own. `errors` and `elsewhere` have to stay empty."""

    def __init__(self, browser: Any, url: str, *, cuts: bool, violates: bool, options: dict[str, Any]) -> None:
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        self._cuts, self._violates, self._home = cuts, violates, urlsplit(url)
        options = {"viewport": {"width": 1280, "height": 800}, "timezone_id": "Europe/Berlin", **options}
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.add_init_script(VIOLATIONS)
        self.context.route("**/*", self._route)
        self.page = self.context.new_page()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(f"page error: {error}"))
        self.page.on("request", lambda request: self._asked(request.url))
        if self._home.scheme == "file":
            self.context.set_offline(True)
        self.page.goto(url)

    def _own(self, url: str) -> bool:
        there = urlsplit(url)
        if there.scheme in ("data", "blob"):
            return True
        if self._home.scheme == "file":
            return there.scheme == "file" and there.path == self._home.path
        return there.netloc == self._home.netloc

    def _route(self, route: Any) -> None:
        route.continue_() if self._own(route.request.url) else route.abort()

    def _asked(self, url: str) -> None:
        if not self._own(url):
            self.elsewhere.append(url)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning") and not (self._cuts and message.text.startswith(UNREACHED)):
            self.errors.append(f"console {message.type}: {message.text}")

    def _is_served(self) -> bool:
        try:
            socket.create_connection((self._home.hostname, self._home.port)).close()
        except ConnectionRefusedError:
            return False
        return True

    def close(self) -> None:
        over = self._home.scheme == "http" and not self._is_served()
        if over:  # it may have been over just now, and the page's last question be on its way
            until(self.page, f"() => {GONE}")
        violations = self.page.evaluate("window.violations")
        self.context.unroute_all(behavior="ignoreErrors")  # one that has lost its server asks again and again
        self.context.close()
        if over:
            self.errors = [error for error in self.errors if UNREACHED not in error]
        assert self.elsewhere == []
        if not self._violates:
            assert (self.errors, violations) == ([], [])


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser, one for all tests."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no chromium (apt install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="make test-page installs playwright")
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []  # its sandbox refuses to run as root
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=arguments, timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture
def read(chromium: Any) -> Iterator[Callable[..., Any]]:
    """`read(path or URL)`: that page, whole. `cuts`: the test cuts its connection; `violates`: it does what the policy
    forbids. More: options of a browser context."""
    readers: list[Reader] = []

    def open_one(where: Path | str, *, cuts: bool = False, violates: bool = False, **options: Any) -> Any:
        url = where.as_uri() if isinstance(where, Path) else where
        reader = Reader(chromium, url, cuts=cuts, violates=violates, options=options)
        readers.append(reader)
        reader.page.wait_for_selector("html[data-drawn]")
        return reader.page

    yield open_one
    for reader in readers:
        reader.close()


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Real runs, each made once, and their reports."""
    return Runs(tmp_path_factory.mktemp("runs"))
