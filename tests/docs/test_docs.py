"""The pages: links lead somewhere, the index is complete, short pages stay short."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *ROOT.glob("*.md"),
    *DOCS.rglob("*.md"),
    *ROOT.glob("bench/results/*.md"),
    *ROOT.glob("deploy/*.md"),
    *ROOT.glob("examples/**/*.md"),
]
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


def test_index_names_every_page_of_the_site() -> None:
    site = maker_of_site()
    listed = [document for _title, documents in site.groups((DOCS / "README.md").read_text()) for document in documents]
    globs = [pattern.replace("**", "**/*") for pattern in site.include_patterns]  # in Sphinx's `**` there are slashes
    pages = {path.relative_to(ROOT).with_suffix("").as_posix() for glob in globs for path in ROOT.glob(glob)}

    assert sorted(pages - set(listed)) == []
    assert len(listed) == len(set(listed))


def maker_of_site() -> ModuleType:
    spec = spec_from_file_location("site_conf", DOCS / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_short_pages_are_short() -> None:
    lengths = {name(page): len(MADE.sub("", page.read_text()).splitlines()) for page in PAGES}
    too_long = {page for page, lines in lengths.items() if page.startswith("docs/decisions/") and lines > 40}
    assert too_long == set()
    assert lengths["README.md"] <= 120
