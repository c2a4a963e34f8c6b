"""Hides secrets in what leaves us: files, page, metrics, errors. The ranks' own log files stay as they are.

Hidden is the value of every argument, variable or field whose name *holds* key, token, secret, password, credential or
auth (anywhere, in any spelling), user and password in URLs, `Authorization`-like text, the well-known shapes of keys,
and what the user's own expressions match. A value that was hidden in `argv` or `env` is remembered and hidden
wherever it turns up later, such as in a rank's last lines, also as JSON, a shell or a URL spells it, and when a text
was cut in the middle of it.

When in doubt it is hidden. The exceptions are few, and none can hold a secret that has a sensible form:
  * words that merely look like one: tokenizer, author, keyboard, keyword, monkey; `KeyError` and the like;
  * counts: names made of counting words around key and token (`max_new_tokens`, `num_key_value_heads`) with a short
    number, `<tag>` or null as their value;
  * in a traceback, `key = self.proj(x)`: a call on self, torch … whose arguments are plain names.
It is no scanner for secrets in arbitrary prose: `the password is x` stays.

64 KiB with 50 known secrets take less than 5 ms: plain searches first, expressions only where they can match.
Read next: `sensitive.py` (which names, which values), docs/secrets.md, `text.py`, which prints only what was in here.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from rankguard.errors import UsageError
from rankguard.jobspec import JobSpec
from rankguard.report.sensitive import (
    CLOSING,
    HIDDEN,
    SENSITIVE,
    STEMS,
    WORDS,
    Known,
    is_secret,
    worth_learning,
)

__all__ = ["HIDDEN", "Redactor", "for_telling", "is_secret", "job_redactor", "knowing", "without_secrets"]

Learn = Callable[[str, str], None]
_CUT = 8
"""Characters of a known secret that are enough to be hidden where a text was cut in the middle of it."""

_NOTHING = re.compile(r"none|null|true|false|value|\*\*\*", re.IGNORECASE)
_SEPARATED = re.compile(
    rf"""(?:{WORDS})[\w.\-]{{0,100}}  # the end of a name
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
_SHAPES_START = ("sk-", "hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "AKIA", "ASIA",
                 "AIza", "eyJ", "-----BEGIN")  # fmt: skip
_SCHEMES = ("bearer", "basic", "digest")


class Redactor:
    """Hides secrets. `argv` and `env` also learn the values that they hide; `text` hides those too.

    `patterns` are the user's own regular expressions: the whole match becomes `***`. Raises `UsageError` for a bad one.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._patterns = [_compiled(pattern) for pattern in patterns]
        self._learnt: dict[str, Known] = {}
        self._longest_first: list[Known] | None = []

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
                name = arg if arg.startswith("-") and SENSITIVE.search(arg) else None
        return shown

    def env(self, mapping: Mapping[str, str]) -> dict[str, str]:
        """Variables: the names stay, values are hidden where their name asks for it."""
        for name, value in mapping.items():  # first, so that another variable with the same value shows it neither
            if value and is_secret(name, value):
                self._learn(name, value)
        return {name: self._value(name, value) for name, value in mapping.items()}

    def rules(self) -> dict[str, list[str]]:
        """What it hides beside the general rules, for another of our processes (`knowing`): secrets, all of it."""
        return {"patterns": [each.pattern for each in self._patterns], "known": list(self._learnt)}

    def learn(self, values: Iterable[str]) -> None:
        """Values to be hidden wherever they turn up."""
        self._learnt |= {value: Known(value) for value in values}
        self._longest_first = None

    def _value(self, name: str, value: str) -> str:
        if not value or not is_secret(name, value):
            return self._text(value, self._learn)
        self._learn(name, value)
        return HIDDEN

    def _learn(self, name: str, value: str) -> None:
        for line in {value, *value.splitlines()}:  # the lines of a private key turn up one by one
            if line not in self._learnt and worth_learning(name, line):
                self._learnt[line] = Known(line)
                self._longest_first = None

    def _text(self, s: str, learn: Learn) -> str:
        for pattern in self._patterns:
            s = pattern.sub(lambda found: HIDDEN if found[0] else "", s)
        s = self._without_known(s)

        def hide(found: re.Match[str]) -> str:
            learn("", found[0])
            return HIDDEN

        def hide_user(found: re.Match[str]) -> str:
            learn("", found[1].split(":", 1)[-1])
            return f"://{HIDDEN}@"

        def hide_header(found: re.Match[str]) -> str:
            value = found[3] or found[4] or ""
            scheme = _BEARER.match(value)
            learn("", scheme[2] if scheme else value.split(" ", 1)[0].strip(CLOSING))
            return f"{found[1]}{found[2] or ''}{HIDDEN}"

        def hide_bearer(found: re.Match[str]) -> str:
            if _PROSE.fullmatch(found[2]):
                return found[0]
            learn("", found[2])
            return f"{found[1]} {HIDDEN}"

        if any(start in s for start in _SHAPES_START):
            s = _SHAPES.sub(hide, s)
        if "://" in s and "@" in s:
            s = _URL_USER.sub(hide_user, s)
        lower = s.lower()
        if "authorization" in lower:
            s = _AUTHORIZATION.sub(hide_header, s)
        if any(scheme in lower for scheme in _SCHEMES):
            s = _BEARER.sub(hide_bearer, s)
        return _named_values(s, learn)

    def _without_known(self, s: str) -> str:
        """Known values go, and what is left of one where `s` was cut off in its middle (a long line, two messages)."""
        known = self._longest_first
        if known is None:
            known = self._longest_first = sorted(self._learnt.values(), key=lambda each: -len(each.value))
        if not known:
            return s
        for each in known:
            s = each.hide(s)
        longest = len(known[0].value)
        head, tail = s[:longest], s[-longest:]
        for value in (each.value for each in known):
            at = tail.rfind(value[:_CUT])
            if at >= 0 and len(value) > _CUT and value.startswith(tail[at:]):
                return self._without_known(s[: len(s) - len(tail) + at] + HIDDEN)
            at = head.find(value[-_CUT:])
            if at >= 0 and len(value) > _CUT and value.endswith(head[: at + _CUT]):
                return self._without_known(HIDDEN + s[at + _CUT :])
        return s


def knowing(rules: Mapping[str, Sequence[str]]) -> Redactor:
    """One that hides what another one does, by its `rules`."""
    redactor = Redactor(rules["patterns"])
    redactor.learn(rules["known"])
    return redactor


def job_redactor(spec: JobSpec) -> Redactor:
    """One that knows the secrets of a job: those of its environment, of each rank's additions, of its command."""
    redactor = Redactor(spec.redact)
    for variables in (spec.env, *spec.rank_env):
        redactor.env(variables)
    redactor.argv(spec.argv)
    redactor.argv(spec.debug_argv)
    return redactor


def without_secrets(spec: JobSpec) -> JobSpec:
    """The same job; what of it is shown again (command, labels) has no secrets in it. What ranks get stays as it is."""
    redactor = job_redactor(spec)
    found = [value for name, value in spec.labels.items() if is_secret(name, value) and worth_learning(name, value)]
    return spec.replace(
        command=tuple(redactor.argv(spec.command)),
        labels=redactor.env(spec.labels),
        redact=(*spec.redact, *map(re.escape, found)),  # they may be in what the ranks print
    )


def for_telling(spec: JobSpec, redactor: Redactor | None = None) -> JobSpec:
    """What those may know who only tell of the job (core, diagnosis, journal): nothing that has to be hidden."""
    redactor = redactor or job_redactor(spec)
    return spec.replace(
        env={},
        rank_env=(),
        cargo=None,
        argv=tuple(redactor.argv(spec.argv)),
        debug_argv=tuple(redactor.argv(spec.debug_argv)),
        cwd=redactor.text(spec.cwd),
        nodes=None if spec.nodes is None else spec.nodes.replace(token="", settings={}),
        share=None if spec.share is None else spec.share.replace(token="", coordinator=None),
        watch=None
        if spec.watch is None
        else spec.watch.replace(
            ready_http=tuple(redactor.text(url.partition("?")[0]) for url in spec.watch.ready_http)
        ),
    )


# ── How ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:  # it is not quoted: it may be a secret itself
        raise UsageError(f"an expression of `redact` is not a regular expression: {error}") from error


def _named_values(s: str, learn: Learn) -> str:
    """`name=value` and its relatives inside a text. By hand, since the value of a harmless name is looked at again."""
    done: list[str] = []
    at = 0
    for stem in _stems(s):
        found = _SEPARATED.match(s, stem) if stem >= at else None
        if found is None:
            continue
        start = stem - _length(s[max(at, stem - 100) : stem][::-1])
        name = s[start : start + _length(s, start)]
        value = _VALUE.match(s, found.end())
        done.append(s[at : found.end()])
        at = found.end()
        if value is not None and _hides(name, s[start + len(name) : at], value):
            learn(name, value[0].strip("\\" + CLOSING))
            done.append(_hidden(value[0]))
            at = value.end()
    return "".join(done) + s[at:]


def _stems(s: str) -> Iterator[int]:
    """Where a name that asks for it may be."""
    lower = s.lower()
    if len(lower) != len(s):  # a few letters of Turkish and Lithuanian have two small ones
        yield from (found.start() for found in SENSITIVE.finditer(s))
        return
    places: list[int] = []
    for stem in STEMS:
        at = lower.find(stem)
        while at >= 0:
            places.append(at)
            at = lower.find(stem, at + 1)
    yield from sorted(places)


_NAME = re.compile(r"[\w.\-]*")


def _length(s: str, at: int = 0) -> int:
    """How many characters of a name stand there."""
    found = _NAME.match(s, at)
    return found.end() - at if found else 0


def _hides(name: str, separator: str, value: re.Match[str]) -> bool:
    bare = value[0].strip(CLOSING)
    if not is_secret(name, value[0]) or _NOTHING.fullmatch(bare):
        return False
    if not re.search("[:=]", separator):  # a blank separates only options from their values
        return name.startswith("--") and not _OPTION.fullmatch(bare)
    source = separator == " = " and SENSITIVE.sub("", name) in {"", "s"}
    return not (source and _CALL.match(value.string, value.start()))


def _hidden(value: str) -> str:
    """`***` in the quotes that were there."""
    found = re.match(r"[bruf]{0,2}(\\*[\"'])", value)
    if not found:
        return HIDDEN
    closed = value.endswith(found[1]) and len(value) > len(found[0])
    return f"{found[0]}{HIDDEN}{found[1] if closed else ''}"
