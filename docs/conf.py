# ruff: noqa: INP001  # Sphinx's configuration, not a package
"""The documentation as a site, for Sphinx: `make docs` builds it into `build/site`. Its reasons: decisions/0017.

The pages are plain Markdown that reads the same on GitHub; nothing of Sphinx stands in them. What a site needs besides
is made here: its order is that of the index (docs/README.md, a heading is a group, a row of its table a page), and its
first page is the README. Nothing is fetched while it is built, nor when it is read: search works from disk.
"""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from rankguard._version import __version__  # noqa: E402  # the path comes first

project = "rankguard"
author = "the rankguard authors"
copyright = "Apache-2.0"  # noqa: A001  # Sphinx's name
version = release = __version__

extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "bench/results/*.md", "deploy/**.md", "examples/**.md"]
exclude_patterns = ["**/node_modules/**"]
nitpicky = True

html_theme = "furo"
html_title = f"rankguard {version}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_search_summary = False  # would be fetched, which a page from disk may not
html_last_updated_fmt = None  # the same pages give the same site
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "tango"
pygments_dark_style = "monokai"

myst_heading_anchors = 6
"""Every heading can be linked to, by the name that GitHub gives it."""
myst_fence_as_directive: set[str] = set()
suppress_warnings = [
    "misc.highlighting_failure",  # an example with `…` in it is not JSON, and is shown plainly
]

INDEX = ROOT / "docs" / "README.md"
ROW = re.compile(r"^\| \[[^]]*\]\(([^)#]+\.md)\)", re.MULTILINE)
HEADING = re.compile(r"^## (.*)$", re.MULTILINE)


def groups(index: str) -> list[tuple[str, list[str]]]:
    """Of the index: each heading, and the documents (paths from the root, without suffix) in its table's order."""
    parts = HEADING.split(index)[1:]
    return [
        (title, [_document(path) for path in ROW.findall(body)])
        for title, body in zip(parts[::2], parts[1::2], strict=True)
    ]


def _document(path: str) -> str:
    return (INDEX.parent / path).resolve().relative_to(ROOT).with_suffix("").as_posix()


def _order(app: Any, name: str, source: list[str]) -> None:
    """The first page gets the tables of contents; nothing of them is seen but in the sidebar."""
    if name != root_doc:
        return
    app.env.note_dependency(str(INDEX))
    for title, documents in groups(INDEX.read_text()):
        listed = "\n".join("/" + each for each in documents if each != root_doc)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{listed}\n```\n"


def _first_page(app: Any, error: Exception | None) -> None:
    """Whoever opens the folder finds the README; both lie in the same place, so every link in it holds."""
    if error is None and app.builder.name == "html":
        shutil.copyfile(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", _order)
    app.connect("build-finished", _first_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
