"""Which names and which values are secret, and the spellings in which a known secret turns up again.

Names decide: key, token, secret, password, credential, auth and their usual abbreviations, anywhere in a name, but not
in words that merely look alike, nor in names of counts whose value is one. Pure; hides nothing (`redact.py` does).
"""

import json
import re
from functools import lru_cache

HIDDEN = "***"
SHORTEST = 6
"""A known value that is shorter is not looked for elsewhere: a `1` must not turn every 1 into stars."""
SHORTEST_WORD = 12
"""As above, of values that could be a word of plain prose (lower-case letters only)."""
SHORTEST_NUMBER = 10

# Beyond the contract's six: their usual abbreviations. PWD and OLDPWD are folders.
WORDS = r"key|token|secret|passw(?:or)?d|passphrase|credential|auth|(?<=[_-])pwd|pwd(?=[_-])"
STEMS = ("key", "token", "secret", "passw", "passphrase", "credential", "auth", "pwd")
"""Each match of `WORDS` contains one, in lower case."""

SENSITIVE = re.compile(WORDS, re.IGNORECASE)
CLOSING = "\"',;)]}"
_LOOKALIKE = re.compile(
    r"(?:de)?tokeni[sz](?:ers?|ed?|ing|ation)|authors?(?![a-z])|keyboard|keywords?|monkey|[\w.]*\.(?:weight|bias)\Z",
    re.IGNORECASE,
)
_ERROR_NAME = re.compile(r"(?:[\w.]*\.)?(?:[A-Z]\w*)?(?:Error|Exception|Warning|Interrupt)")
_PARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")

# A name made of these words only, and of at least one that counts, is a count; the value has to look like one too.
_COUNTED = re.compile(r"keys?|tokens?")
_COUNTING = re.compile(
    r"max|min|num|n|total|avg|mean|new|cached|prompt|prefill|decode|generated|completion|input|output|batch(?:ed)?|per|s"
    r"|sec(?:ond)?|step|iter|len(?:gth)?|size|count|limit|budget|chunked|context|reserved|usage|rate|throughput|dim|kv"
    r"|seq(?:uence)?|heads?|layers?|values?|query|ids?|special|start|end|stop|eos|bos|pad|unk|mask|sep|cls"
)
_WIDE = re.compile(r"keys|tokens|heads|eos|bos|pad|unk|mask|sep|cls")
_COUNT = re.compile(
    r"[-+]?\d{1,12}(?:\.\d{0,6})?(?:e[-+]?\d{1,2})?[kmgb]?|<[^<>\s]{1,24}>|none|null|true|false|auto", re.IGNORECASE
)
_SHORT_COUNT = re.compile(r"[-+]?\d{1,5}(?:\.\d{0,6})?|none|null|true|false|auto", re.IGNORECASE)
_FILE_NAME = re.compile(r"(?:file|path|dir|sock|authority)\Z", re.IGNORECASE)
_FILE = re.compile(r"\w\.(?:py|sh|json|ya?ml|toml|txt|pem|crt|key|model|safetensors|bin|so)\Z")


def is_secret(name: str, value: str) -> bool:
    """Whether the value of something with this name has to be hidden."""
    harmless = _harmless_values(name)
    if isinstance(harmless, bool):
        return not harmless
    return not harmless.fullmatch(value.strip(CLOSING))


@lru_cache(4096)
def _harmless_values(name: str) -> "bool | re.Pattern[str]":
    """What may be shown under this name: everything, nothing, or what looks like a count."""
    rest = _LOOKALIKE.sub("", name)
    if not SENSITIVE.search(rest) or _ERROR_NAME.fullmatch(name):
        return True
    parts = [part.lower() for part in _PARTS.split(rest) if part]
    counting = [part for part in parts if _COUNTING.fullmatch(part)]
    if counting and all(_COUNTED.fullmatch(part) for part in parts if part not in counting):
        # `new_token: 7` is a count, `new_token: 839201` may be a one-time password; `max_tokens: 131072` is a count.
        return _COUNT if any(_WIDE.fullmatch(part) for part in parts) else _SHORT_COUNT
    return False


def worth_learning(name: str, value: str) -> bool:
    """Long and odd enough that it means the secret wherever it turns up: not `required`, a small number, or a file."""
    if _FILE_NAME.search(name) or _FILE.search(value) or value == HIDDEN:
        return False
    if value.isdigit() and len(value) < SHORTEST_NUMBER:
        return False
    return len(value) >= SHORTEST_WORD or (len(value) >= SHORTEST and not (value.isalpha() and value.islower()))


def spellings(value: str) -> set[str]:
    """The value itself and as JSON, Python, a shell or a URL writes it; each line of it too (a private key)."""
    found: set[str] = set()
    for text in {value, *value.splitlines()}:
        if text.isalnum() and text.isascii():
            found.add(text)
            continue
        in_json = json.dumps(text)[1:-1]
        found |= {text, in_json, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(in_json)[1:-1]}
        found |= {repr(text)[1:-1], ascii(text)[1:-1], repr(text.encode(errors="replace"))[2:-1]}
        found |= {text.replace("'", "'\"'\"'"), text.replace("'", "'\\''"), _escaped(text)}
        found |= {_percent(text, "-._~"), _percent(text, "-._~/"), _percent(text, "-._~").replace("%20", "+")}
    return found


_UNSAFE = re.compile(r"[^\w@%+=:,./-]", re.ASCII)


def _escaped(text: str) -> str:
    """As bash's `printf %q` writes it."""
    return _UNSAFE.sub(lambda found: "\\" + found[0], text)


def _percent(text: str, safe: str) -> str:
    def one(char: str) -> str:
        if char in safe or (char.isascii() and char.isalnum()):
            return char
        return "".join(f"%{byte:02X}" for byte in char.encode(errors="replace"))

    return "".join(map(one, text))
