"""The pages: links lead somewhere, the index is complete, short pages stay short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
MADE = re.compile(r"<!-- bench -->.*?<!-- /bench -->\n", re.DOTALL)
"""The table of the README that the bench makes."""
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for path, anchor in LINK.findall(page.read_text()):
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(f"{path}#{anchor}")
    assert broken == []


def test_index_names_every_page() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / path).resolve() for path, _ in LINK.findall(index.read_text())}
    assert [name(page) for page in DOCS.rglob("*.md") if page != index and page.resolve() not in linked] == []


def test_short_pages_are_short() -> None:
    lengths = {name(page): len(MADE.sub("", page.read_text()).splitlines()) for page in PAGES}
    too_long = {page for page, lines in lengths.items() if page.startswith("docs/decisions/") and lines > 40}
    assert too_long == set()
    assert lengths["README.md"] <= 120
