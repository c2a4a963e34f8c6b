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
_STORE_KEYS = re.compile(r"/default_pg/\d{1,6}//\w{0,8}//\d{1,6}(?:/\d{1,6})?")
"""torch's TCPStore names the key that it waited for in vain: a group and the rank whose address it is."""
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
    if name.lower() == "keys":
        return _STORE_KEYS
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


class Known:
    """A secret value, and how to find it again: as it is, and as JSON, Python, a shell, a URL or HTML writes it, escaped
    as often as it may have been passed on.
    """

    def __init__(self, value: str) -> None:
        self.value = value
        self._anchor = max(_PLAIN.findall(value), key=len, default="")
        self._pattern: re.Pattern[str] | None = None

    def hide(self, text: str) -> str:
        """Without it. Cheap where it is not there: a search for its longest plain part."""
        if self._anchor not in text:
            return text
        if self._anchor == self.value:
            return text.replace(self.value, HIDDEN)
        if self._pattern is None:  # 2 ms, and few secrets ever turn up
            self._pattern = re.compile("".join(map(_spelt, self.value)))
        return self._pattern.sub(HIDDEN, text)


_PLAIN = re.compile(r"[A-Za-z0-9]+")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;|&#39;"}
_SHELL_QUOTE = r"\\*'\\*\"\\*'\\*\"\\*'|\\*'\\+'\\*'"  # '"'"' and '\''


def _spelt(char: str) -> str:
    """One character in all its spellings, as an expression; any number of backslashes before what may be escaped."""
    if char.isascii() and char.isalnum():
        return char
    percent = "".join(f"%{byte:02x}" for byte in char.encode(errors="replace"))
    codes = [json.dumps(char)[1:-1], ascii(char)[1:-1], repr(char.encode(errors="replace"))[2:-1]]
    codes += [f"\\u{ord(char):04x}"] if ord(char) < 0x80 else []
    escaped = {re.escape(code).replace(r"\\", r"\\+") for code in codes if code.startswith("\\") and len(code) > 1}
    ways = [_SHELL_QUOTE] if char == "'" else []
    ways += [r"\\+" if char == "\\" else rf"\\*{re.escape(char)}", f"(?i:{percent})", *sorted(escaped)]
    ways += [_HTML[char]] if char in _HTML else []
    ways += [r"\+"] if char == " " else []
    return f"(?:{'|'.join(ways)})"
