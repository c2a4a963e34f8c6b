"""The page's own files: as the page server hands them out, and as one file that needs no network.

The page is written once, in `static/`; `page.html` names its styles and scripts, and both forms are made from those
names. It puts nothing into HTML itself: what a run says travels as JSON and is shown by the scripts as text.
Not here: what the page shows (`data.py`). Read next: `static/page.html`, `static/js/base.js`.
"""

import base64
import hashlib
import json
import os
import re
from typing import Any

STATIC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "static")
PAGE = "page.html"
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_STYLE = re.compile(r'<link rel="stylesheet" href="([\w./-]+)">')
_SCRIPT = re.compile(r'<script src="([\w./-]+)"></script>')
_POLICY = "<!-- policy -->"
_DATA = "<!-- data -->"
_HARMLESS = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}
"""In a script element only `</script` and `<!--` have a meaning; without these three there can be neither."""


def served() -> dict[str, tuple[str, bytes]]:
    """What a server answers: path → (content type, body). `/` is the page; it names the others relative to itself."""
    page = _read(PAGE)
    found = {"/": page.replace(_POLICY, "").replace(_DATA, "")}
    found |= {f"/{name}": _read(name) for name in (*_STYLE.findall(page), *_SCRIPT.findall(page))}
    return {path: (_type(path), text.encode()) for path, text in found.items()}


def self_contained(data: dict[str, Any]) -> bytes:
    """One HTML file that holds `data` (`{"view", "memory", "logs"}`), every style and every script, and asks nobody for
    anything: its policy allows those scripts and styles by their hashes, and no connection.
    """
    page = _read(PAGE)
    styles = [_read(name) for name in _STYLE.findall(page)]
    scripts = [_read(name) for name in _SCRIPT.findall(page)]
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, scripts))}",
            f"style-src {' '.join(map(_hash, styles))}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    told = json.dumps(data, separators=(",", ":")).translate(_HARMLESS)  # ASCII: no U+2028, no lone surrogate either
    page = page.replace(_POLICY, f'<meta http-equiv="Content-Security-Policy" content="{policy}">')
    page = _STYLE.sub(lambda _: f"<style>{styles.pop(0)}</style>", page)
    page = _SCRIPT.sub(lambda _: f"<script>{scripts.pop(0)}</script>", page)
    return page.replace(_DATA, f'<script type="application/json" id="rankguard-data">{told}</script>').encode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _type(path: str) -> str:
    kind = "html" if path == "/" else path.rpartition(".")[2]
    return f"{TYPES[kind]}; charset=utf-8"


def _read(name: str) -> str:
    with open(os.path.join(STATIC, name), encoding="utf-8") as file:
        return file.read()
