"""Hides secrets in what leaves us: files, page, metrics, errors. The ranks' own log files stay as they are.

Hidden is the value of every argument, variable or field whose name *holds* key, token, secret, password, credential or
auth (anywhere, in any spelling), user and password in URLs, `Authorization`-like text, the well-known shapes of keys,
and what the user's own expressions match. A value that was hidden in `argv` or `env` is remembered and hidden
wherever it turns up later, such as in a rank's last lines.

When in doubt it is hidden. The exceptions are few, and none can hold a secret that has a sensible form:
  * words that merely look like one: tokenizer, author, keyboard, keyword, monkey; `KeyError` and the like;
  * counts: names made of counting words around key and token (`max_new_tokens`, `num_key_value_heads`) with a short
    number, `<tag>` or null as their value;
  * in a traceback, `key = self.proj(x)`: a call on self, torch … whose arguments are plain names.
It is no scanner for secrets in arbitrary prose: `the password is x` stays.

Read next: `text.py`, which prints only what has been through here.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from rankguard.errors import UsageError

HIDDEN = "***"
Learn = Callable[[str, str], None]

# Beyond the contract's six: their usual abbreviations. PWD and OLDPWD are folders.
_WORDS = r"key|token|secret|passw(?:or)?d|passphrase|credential|auth|(?<=[_-])pwd|pwd(?=[_-])"
_SENSITIVE = re.compile(_WORDS, re.IGNORECASE)
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
_NOTHING = re.compile(r"none|null|true|false|\*\*\*", re.IGNORECASE)
_CLOSING = "\"',;)]}"

_NAME_BEFORE = re.compile(r"[\w.\-]{0,100}\Z")
_SEPARATED = re.compile(
    rf"""(?:{_WORDS})[\w.\-]{{0,100}}  # the end of a name
    (?: \\*["']?\]?[ \t]*(?::=|=>|==?|:)[ \t]*  # name=value, "name": value, ["name"] = value
      | (?:["'],)?[ \t]+ )  # --name value, '--name', 'value'
    """,
    re.IGNORECASE | re.VERBOSE,
)
_VALUE = re.compile(
    r"""(?P<esc>\\+["'])[^\n]{0,4000}?(?P=esc)  # quotes in a string of a string
    | (?P<three>\"{3}|'{3})(?s:.){0,4000}?(?:(?P=three)|\Z)
    | [bruf]{0,2}(?:"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?)(?:[^\s,;:)}\]>]\S*)?  # what is glued to it belongs to it
    | \S+""",
    re.VERBOSE,
)
_CALL = re.compile(r"(?:self|cls|torch|np|F|nn)\.[\w.]+[(\[][\w., =*:()\[\]-]*$", re.MULTILINE)
_OPTION = re.compile(r"-[A-Za-z]|--|--[a-z][a-z0-9_.\-]*(?:=.*)?", re.DOTALL)
_ASSIGNED = re.compile(r"(-{0,2}[^\s=\"'{}\[\]:,]{1,200})=(.*)", re.DOTALL)

_URL_USER = re.compile(r"://((?:[^\s:/@?#]*:(?!\d{1,5}[/?#])(?:(?!://)[^\s\"'<>])*|[^\s/?#\"'<>@]+))@")
_AUTHORIZATION = re.compile(
    r"(authorization\\*[\"']?[ \t]*[:=][ \t]*)(?:(\\*[\"'])((?:(?!\2).)*)|([^\r\n]+))", re.IGNORECASE
)
_BEARER = re.compile(r"\b(bearer|basic|digest)[ \t]+(?!\*\*\*)([^\s\"'\\,;]+)", re.IGNORECASE)
_PROSE = re.compile(
    r"tokens?|auth|authentication|authorization|scheme|credentials|configuration|example", re.IGNORECASE
)
_SHAPES = re.compile(
    r"\b(?:sk-[\w-]{16,}|hf_\w{16,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{10,}"
    r"|A[KS]IA[0-9A-Z]{16}|AIza[\w-]{30,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)


class Redactor:
    """Hides secrets. `argv` and `env` also learn the values that they hide; `text` hides those too.

    `patterns` are the user's own regular expressions: the whole match becomes `***`. Raises `UsageError` for a bad one.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._patterns = [_compiled(pattern) for pattern in patterns]
        self._learnt: set[str] = set()
        self._learnt_pattern: re.Pattern[str] | None = None

    def text(self, s: str) -> str:
        """Any text: a line of a log, a message, a traceback, a shell command."""
        return self._text(s, lambda name, value: None)

    def argv(self, args: Iterable[str]) -> list[str]:
        """A command line, argument by argument: `--api-key X`, `--api-key=X`, `API_KEY=X`, `-Dpassword=X`."""
        shown: list[str] = []
        name: str | None = None  # of the option whose value comes next
        for arg in args:
            assigned = _ASSIGNED.fullmatch(arg)
            if name is not None and not _OPTION.fullmatch(arg):
                shown.append(self._value(name, arg))
                name = None
            elif assigned:
                shown.append(f"{assigned[1]}={self._value(assigned[1], assigned[2])}")
                name = None
            else:
                shown.append(self._text(arg, self._learn))
                name = arg if arg.startswith("-") and _SENSITIVE.search(arg) else None
        return shown

    def env(self, mapping: Mapping[str, str]) -> dict[str, str]:
        """Variables: the names stay, values are hidden where their name asks for it."""
        return {name: self._value(name, value) for name, value in mapping.items()}

    def _value(self, name: str, value: str) -> str:
        if not value or not is_secret(name, value):
            return self._text(value, self._learn)
        self._learn(name, value)
        return HIDDEN

    def _learn(self, name: str, value: str) -> None:
        for line in {value, *value.splitlines()}:  # the lines of a private key turn up one by one
            if _worth_learning(name, line) and line not in self._learnt:
                self._learnt.add(line)
                self._learnt_pattern = None

    def _text(self, s: str, learn: Learn) -> str:
        if self._learnt_pattern is None and self._learnt:
            longest_first = sorted(self._learnt, key=len, reverse=True)
            self._learnt_pattern = re.compile("|".join(map(re.escape, longest_first)))
        for pattern in [*self._patterns, *([self._learnt_pattern] if self._learnt_pattern else [])]:
            s = pattern.sub(lambda found: HIDDEN if found[0] else "", s)

        def hide(found: re.Match[str]) -> str:
            learn("", found[0])
            return HIDDEN

        def hide_user(found: re.Match[str]) -> str:
            learn("", found[1].split(":", 1)[-1])
            return f"://{HIDDEN}@"

        def hide_header(found: re.Match[str]) -> str:
            value = found[3] or found[4] or ""
            scheme = _BEARER.match(value)
            learn("", scheme[2] if scheme else value.split(" ", 1)[0].strip(_CLOSING))
            return f"{found[1]}{found[2] or ''}{HIDDEN}"

        def hide_bearer(found: re.Match[str]) -> str:
            if _PROSE.fullmatch(found[2]):
                return found[0]
            learn("", found[2])
            return f"{found[1]} {HIDDEN}"

        s = _URL_USER.sub(hide_user, _SHAPES.sub(hide, s))
        return _named_values(_BEARER.sub(hide_bearer, _AUTHORIZATION.sub(hide_header, s)), learn)


def is_secret(name: str, value: str) -> bool:
    """Whether the value of something with this name has to be hidden."""
    rest = _LOOKALIKE.sub("", name)
    if not _SENSITIVE.search(rest) or _ERROR_NAME.fullmatch(name):
        return False
    parts = [part.lower() for part in _PARTS.split(rest) if part]
    counting = [part for part in parts if _COUNTING.fullmatch(part)]
    if counting and all(_COUNTED.fullmatch(part) for part in parts if part not in counting):
        # `new_token: 7` is a count, `new_token: 839201` may be a one-time password; `max_tokens: 131072` is a count.
        count = _COUNT if any(_WIDE.fullmatch(part) for part in parts) else _SHORT_COUNT
        return not count.fullmatch(value.strip(_CLOSING))
    return True


# ── How ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"--redact: `{pattern}` is not a regular expression: {error}") from error


_FILE_NAME = re.compile(r"(?:file|path|dir|sock|authority)\Z", re.IGNORECASE)
_FILE = re.compile(r"\w\.(?:py|sh|json|ya?ml|toml|txt|pem|crt|key|model|safetensors|bin|so)\Z")


def _worth_learning(name: str, value: str) -> bool:
    """Long and odd enough that it means the secret wherever it turns up: not `required`, a small number, or a file."""
    if _FILE_NAME.search(name) or _FILE.search(value) or value == HIDDEN or (value.isdigit() and len(value) < 10):
        return False
    return len(value) >= 12 or (len(value) >= 6 and not (value.isalpha() and value.islower()))


def _named_values(s: str, learn: Learn) -> str:
    """`name=value` and its relatives inside a text. By hand, since the value of a harmless name is looked at again."""
    done: list[str] = []
    at = 0
    while found := _SEPARATED.search(s, at):
        before = _NAME_BEFORE.search(s, max(at, found.start() - 100), found.start())
        start = before.start() if before else found.start()
        name = _NOT_NAME.split(s[start : found.end()], maxsplit=1)[0]
        value = _VALUE.match(s, found.end())
        done.append(s[at : found.end()])
        at = found.end()
        if value is not None and _hides(name, s[start + len(name) : at], value):
            learn(name, value[0].strip("\\" + _CLOSING))
            done.append(_hidden(value[0]))
            at = value.end()
    return "".join(done) + s[at:]


_NOT_NAME = re.compile(r"[^\w.\-]")


def _hides(name: str, separator: str, value: re.Match[str]) -> bool:
    bare = value[0].strip(_CLOSING)
    if _NOTHING.fullmatch(bare) or not is_secret(name, value[0]):
        return False
    if not re.search("[:=]", separator):  # a blank separates only options from their values
        return name.startswith("--") and not _OPTION.fullmatch(bare)
    source = separator == " = " and _SENSITIVE.sub("", name) in {"", "s"}
    return not (source and _CALL.match(value.string, value.start()))


def _hidden(value: str) -> str:
    """`***` in the quotes that were there."""
    found = re.match(r"[bruf]{0,2}(\\*[\"'])", value)
    if not found:
        return HIDDEN
    closed = value.endswith(found[1]) and len(value) > len(found[0])
    return f"{found[0]}{HIDDEN}{found[1] if closed else ''}"
