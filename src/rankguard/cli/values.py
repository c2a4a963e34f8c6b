"""What options accept: text → value. Each raises `ValueError` with what was expected. Pure."""

import os
import re
import signal

from rankguard.linux import target
from rankguard.record import Record

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_HOST = re.compile(r"[\w.:-]+")
_STREAMS = "0 to 3, or RANK:0-3 for some ranks, such as 0:3,10-15:1"


class Streams:
    """Which streams of which ranks: `3`, or `0:3,10-15:1` (torchrun's `Std`: 0 none, 1 stdout, 2 stderr, 3 both)."""

    def __init__(self, all_ranks: int, some: dict[int, int]) -> None:
        self.all_ranks, self.some = all_ranks, some

    def of(self, rank: int) -> int:
        """The streams of one rank, as bits."""
        return self.some.get(rank, self.all_ranks)

    def beyond(self, nprocs: int) -> list[int]:
        """The ranks that a job of `nprocs` does not have."""
        return sorted(rank for rank in self.some if rank >= nprocs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Streams) and (self.all_ranks, self.some) == (other.all_ranks, other.some)

    def __hash__(self) -> int:
        return hash((self.all_ranks, *self.some.items()))


def streams(text: str) -> Streams:
    if text in ("0", "1", "2", "3"):
        return Streams(int(text), {})
    some: dict[int, int] = {}
    for part in text.split(","):
        which, _colon, value = part.strip().partition(":")
        if value not in ("0", "1", "2", "3"):
            raise ValueError(_STREAMS)
        try:
            some |= dict.fromkeys(ranks(which), int(value))
        except ValueError:
            raise ValueError(_STREAMS) from None
    return Streams(0, some)


def ranks(text: str) -> tuple[int, ...]:
    """`0,2,4-7`."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not _whole(first) or (dash and not _whole(last)) or (dash and int(last) < int(first)):
            raise ValueError("ranks, such as 0,2,4-7")
        if dash and int(last) - int(first) > 1_000_000:
            raise ValueError("fewer ranks")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def shown_ranks(text: str) -> tuple[int, ...]:
    """As `ranks`; nothing is nothing, as torchrun's own default is."""
    return ranks(text) if text.strip() else ()


def nproc(text: str) -> str:
    """A number of ranks, or what to count."""
    if text in ("auto", "cpu", "gpu", "xpu") or (_whole(text) and int(text) > 0):
        return text
    raise ValueError("1 or more ranks, `auto`, `cpu`, `gpu` or `xpu`")


def nodes(text: str) -> tuple[int, int]:
    """`1`, or the fewest and the most: `2:4`."""
    least, colon, most = text.partition(":")
    if _whole(least) and _whole(most if colon else least):
        found = int(least), int(most or least)
        if 0 < found[0] <= found[1]:
            return found
    raise ValueError("a number of machines, or MIN:MAX")


def node_rank(text: str) -> int | None:
    """Null for `auto`."""
    if text == "auto":
        return None
    if not _whole(text):
        raise ValueError("a number from 0, or `auto`")
    return int(text)


def resources(text: str) -> tuple[tuple[str, float], ...]:
    """`GPU=8,CPU=16`, or a JSON object: what Ray gives each node. None is negative."""
    said = "NAME=N,… or a JSON object of numbers"
    text = text.strip()
    if text.startswith("{"):
        import json  # no start without it waits for it

        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError(said) from None
    else:
        pairs = [part.partition("=")[::2] for part in text.split(",") if part.strip()]
        found = {name.strip(): _number(value) for name, value in pairs}
    for name, value in found.items():
        if not name or type(value) not in (int, float) or not 0 <= value < 1e15:
            raise ValueError(said)
    return tuple(found.items())


def _number(text: str) -> float | None:
    try:
        return int(text) if _whole(text.strip()) else float(text)
    except ValueError:
        return None


class Endpoint(Record):
    """`host:29500`. No port, or 0: a free one."""

    host: str
    port: int | None


def endpoint(text: str) -> Endpoint | None:
    """`HOST`, `HOST:PORT`, `[IPv6]:PORT`; null for nothing. A lone IPv6 address has no port."""
    text = text.strip()
    if not text:
        return None
    where, port_text = text, ""
    if text.startswith("[") or text.count(":") == 1:
        where, colon, port_text = text.rpartition(":") if not text.endswith("]") else (text, "", "")
        if colon and not (_whole(port_text) and int(port_text) < 65536):
            raise ValueError("HOST or HOST:PORT")
    return Endpoint(host(where), int(port_text or 0) or None)


def host_list(text: str) -> str | None:
    """The first host of Slurm's list: `gpu[03-05,9],login1` → `gpu03`. Null for what is none."""
    depth, first = 0, ""
    for letter in text.strip():
        depth += (letter == "[") - (letter == "]")
        if letter == "," and not depth:
            break
        first += letter
    found = re.sub(r"\[(\w+)[^\]]*\]", r"\1", first)
    return found if _HOST.fullmatch(found) else None


def http(text: str) -> str:
    """Where to listen: `:8080`, `0.0.0.0:8080`."""
    from rankguard.http.listen import address

    return address(text)


def host(text: str) -> str:
    """A name or an address; IPv6 with or without its brackets."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not _HOST.fullmatch(bare):
        raise ValueError("the name or address of a machine")
    return bare


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise ValueError("a number of seconds")
    return value


def some_seconds(text: str) -> float:
    """More than none."""
    value = seconds(text)
    if not value:
        raise ValueError("a number of seconds, more than 0")
    return value


def count(text: str) -> int:
    if not _whole(text):
        raise ValueError("a whole number, 0 or more")
    return int(text)


def port(text: str) -> int:
    if not _whole(text) or not 0 < int(text) < 65536:
        raise ValueError("a port from 1 to 65535")
    return int(text)


def size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("a size such as 64M, 1G or 0")
    if len(match[1]) > 15:
        raise ValueError("a size such as 64M, 1G or 0")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))


def label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError("KEY=VALUE")
    return key, value


def regex(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"a regular expression ({error})") from None
    return text


def telling_regex(text: str) -> str:
    """One that tells some from others (`diagnosis/roles.py`)."""
    if re.search(regex(text), "") is not None:
        raise ValueError("a pattern that tells some processes from others; this one matches everything")
    return text


def ready_url(text: str) -> str:
    target.url(text)
    return text


def ready_endpoint(text: str) -> str:
    target.endpoint(text)
    return text.strip()


def folder(text: str) -> str:
    """Not the one where we are by mistake: `--run-dir "$UNSET"`."""
    if not text:
        raise ValueError("a folder")
    return text


def ready_path(text: str) -> str:
    """From where we are now: the engine's folder is the same."""
    if not text or text.endswith("/") or "\0" in text:
        raise ValueError("the path of a file")
    return os.path.abspath(text)


def texts(text: str) -> tuple[str, ...]:
    """Separated by commas; two commas are one comma of a text (torchrun's rule)."""
    parts = text.replace(",,", "\0").split(",")
    return tuple(part.replace("\0", ",") for part in parts if part)


def signals(text: str) -> frozenset[int]:
    """`SIGTERM,SIGQUIT` or `TERM,QUIT`."""
    found = set()
    for part in filter(None, (part.strip().upper() for part in text.split(","))):
        name = part if part.startswith("SIG") else f"SIG{part}"
        number = getattr(signal, name, None)
        if not isinstance(number, signal.Signals):
            raise ValueError(f"names of signals; `{part}` is none")  # noqa: TRY004  # it is text
        if number in (signal.SIGKILL, signal.SIGSTOP):
            raise ValueError(f"signals that can be handled, unlike {name}")
        found.add(int(number))
    return frozenset(found)


def _whole(text: str) -> bool:
    """A whole number that is no nonsense: at most nine digits, since Python refuses thousands of them in words of its own."""
    return text.isascii() and text.isdecimal() and len(text) < 10


def age(text: str) -> float:
    """`7d`, `12h`, `30m`, `90s`, `2w` → seconds."""
    number, unit = text[:-1], text[-1:].lower()
    if unit not in _AGES or not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", number):
        raise ValueError("an age such as 7d, 12h or 30m")
    return float(number) * _AGES[unit]


_AGES = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
