"""The site as `make docs` has built it: whole, its links lead somewhere, and nothing of it is fetched from elsewhere."""

import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
if not os.environ.get("SITE_FOLDER"):
    pytest.skip("`make docs` builds the site and runs this", allow_module_level=True)
SITE = ROOT / os.environ["SITE_FOLDER"]

LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "object": "data",
    "embed": "src",
}
LOADING_LINKS = {
    "stylesheet",
    "icon",
    "shortcut",
    "preload",
    "modulepreload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "manifest",
}


class Page(HTMLParser):
    """What a page loads, what it links to, and what in it can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: set[str] = set()
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if name := told.get("id"):
            self.ids.add(name)
        if tag == "a" and (href := told.get("href")):
            self.links.add(href)
        if (given := LOADS.get(tag)) and (value := told.get(given)):
            self.loads.add(value)
        if tag == "link" and LOADING_LINKS & set((told.get("rel") or "").split()):
            self.loads.add(told.get("href") or "")


@pytest.fixture(scope="module")
def pages() -> dict[Path, Page]:
    return {path: Page(path) for path in SITE.rglob("*.html")}


def test_every_page_is_there(pages: dict[Path, Page]) -> None:
    sources = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert [page for page in sources if (SITE / page.relative_to(ROOT)).with_suffix(".html") not in pages] == []
    assert (SITE / "index.html") in pages


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page]) -> None:
    assert [(path.name, each) for path, page in pages.items() for each in page.loads if urlsplit(each).netloc] == []
    for style in SITE.rglob("*.css"):
        text = style.read_text()
        assert re.findall(r"""(?:url\(|@import)\s*["']?(?:https?:)?//[^)"']*""", text) == [], style.name


def test_scripts_ask_no_other_host() -> None:
    for script in SITE.rglob("*.js"):
        text = script.read_text()
        asked = re.findall(r"""(?:fetch|importScripts|open)\(\s*["'](?:GET["'],\s*["'])?https?://[^"']*""", text)
        assert asked == [], script.name


def test_links_lead_somewhere(pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links | page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].ids):
                broken.append((path.relative_to(SITE).as_posix(), link))
    assert broken == []


def test_whoever_reads_the_first_page_can_reach_all(pages: dict[Path, Page]) -> None:
    first = SITE / "index.html"
    reached = {(SITE / unquote(urlsplit(link).path)).resolve() for link in pages[first].links}
    apart = {first, SITE / "README.html", SITE / "genindex.html", SITE / "search.html"}  # the README is the first page
    unreached = {path for path in pages if path not in reached} - apart
    assert unreached == set()


def test_the_search_is_a_script_and_finds_a_word(pages: dict[Path, Page]) -> None:
    assert any(load.split("?")[0] == "searchindex.js" for load in pages[SITE / "search.html"].loads)
    index = (SITE / "searchindex.js").read_text()
    assert index.startswith("Search.setIndex(")
    assert all(f'"{name}"' in index for name in ("docs/watch", "docs/command-line", "README"))


def test_git_does_not_see_it() -> None:
    asked = subprocess.run(["git", "check-ignore", SITE / "index.html"], cwd=ROOT, capture_output=True)
    assert asked.returncode in (0, 128)  # 128: not a checkout
