"""What a rank says of the exception that ends it: one message to the supervisor, before anything is printed.

Works where little else does: out of memory, of descriptors, with exceptions that cannot be printed. Three tellings are
tried, each with less in it. Imports nothing that the program could have replaced by a file of its own name.

Also leaves the file that `torch.distributed.elastic` readers expect (torch's `error_handler.py` writes it from
`@record`; a program without `@record` gets it from us).

Not the printing of the traceback: that is Python's, in `program.py`.
"""

import os
import sys
import time

TEXT_MOST = 16 << 10
MESSAGE_MOST = 2000
FRAMES_MOST = 64
CHAIN_MOST = 32
CHAIN_LONGEST = 10_000
DATAGRAM_MOST = 100_000
WAIT_MOST = 1.0
DEEP = 300
"""Frames above which a traceback is not formatted whole: a raised recursion limit allows millions."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any

    from rankguard.inside.line import Line


class LastWords:
    """Made at the start of the process, while there are memory and descriptors; `report` is used at most once."""

    def __init__(self, line: "Line") -> None:
        self._line, self._pid = line, os.getpid()
        try:
            self._spare: bytes | None = bytes(4 << 20)  # calloc: address space, no memory until it is written to
        except MemoryError:
            self._spare = None

    def report(self, error: BaseException, raised_at: float) -> None:
        """Tells the supervisor of `error`. Never raises, and blocks for a second at most."""
        self._spare = None
        if os.getpid() != self._pid:
            return  # a forked child of the rank: its exceptions are its own
        release = _hold_sigterm()
        try:
            self._tell(error, raised_at)
        finally:
            release()

    def _tell(self, error: BaseException, raised_at: float) -> None:
        text = ""
        for telling in (_in_full, _in_short, _barely):
            try:
                told, text = telling(error, raised_at)
                self._line.send(b"X_RANKGUARD_EXCEPTION=" + told, WAIT_MOST)
                break
            except BaseException:  # noqa: BLE001, S112  # whatever it was: less may still go through
                continue
        if isinstance(error, SystemExit):
            return  # torch leaves none for it either
        try:
            self._leave_file(error, text)
        except BaseException:  # noqa: BLE001, S110  # the program's own end must go on
            pass

    def _leave_file(self, error: BaseException, text: str) -> None:
        path = os.environ.get("TORCHELASTIC_ERROR_FILE")
        if not path or os.path.lexists(path):
            return
        extra = {"py_callstack": text, "timestamp": str(int(time.time()))}
        content = {"message": {"message": f"{type(error).__name__}: {_said(error)}", "extraInfo": extra}}
        self._line.close()  # it may be the one descriptor that is needed now
        fresh = f"{path}.{os.getpid()}"  # a reader must never see half of it
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, _json(content).encode("ascii"))
        finally:
            os.close(fd)
        os.rename(fresh, path)


def _hold_sigterm() -> "Callable[[], None]":
    """Another rank may have failed in the same moment, and all are told to end: SIGTERM comes when this one has told why.

    Only where it would end the process at once; a program's own handler is left alone, and no SIGTERM is lost.
    """
    came = []
    try:
        import _signal  # type: ignore[import-not-found]  # built in, and no file of a program can take its place

        if _signal.getsignal(_signal.SIGTERM) != _signal.SIG_DFL:
            return lambda: None
        _signal.signal(_signal.SIGTERM, lambda *_: came.append(True))
    except BaseException:  # noqa: BLE001  # not the main thread, no memory: then it comes when it comes
        return lambda: None

    def release() -> None:
        try:
            _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
        except BaseException:  # noqa: BLE001, S110  # nothing to be done
            pass
        if came:
            os.kill(os.getpid(), 15)

    return release


# ── Three tellings: (JSON, text of the traceback) ────────────────────────────────────────────────────────────────


def _in_full(error: BaseException, raised_at: float) -> "tuple[bytes, str]":
    text = _cut(_formatted(error), TEXT_MOST)
    for less in (1, 4, 16):  # non-ASCII text is up to six times as long in JSON
        told = _told(error, raised_at, _cut(text, TEXT_MOST // less), less, deep=True)
        if len(told) <= DATAGRAM_MOST:
            break
    return told, text


def _in_short(error: BaseException, raised_at: float) -> "tuple[bytes, str]":
    text = "".join(f"  File {frame}\n" for frame in _frames(error.__traceback__, FRAMES_MOST))
    text = f"Traceback (most recent call last):\n{text}{_line_of(error)}\n"
    return _told(error, raised_at, text[-TEXT_MOST:], 4, deep=True), text


def _barely(error: BaseException, raised_at: float) -> "tuple[bytes, str]":
    return _told(error, raised_at, "", 16, deep=False), ""


def _told(error: BaseException, raised_at: float, text: str, less: int, *, deep: bool) -> bytes:
    fields: dict[str, object] = {
        "type": _name(type(error)),
        "message": _said(error)[: MESSAGE_MOST // less],
        "module": str(type(error).__module__),
        "traceback": text or None,
        "frames": list(_frames(error.__traceback__, FRAMES_MOST // less)) if deep else [],
        "chain": _middle_out([words[: 500 // less] for words in _chain(error)], CHAIN_MOST // less) if deep else [],
        "raised_at": raised_at,
    }
    if isinstance(error, SystemExit):
        fields["code"] = error.code & 0xFF if isinstance(error.code, int) else 1
    collectives = _collectives(error) if deep else []
    if collectives:
        fields["collectives"] = collectives
    if isinstance(error, OSError):
        try:
            fields["errno"] = int(error.errno)  # type: ignore[arg-type]  # None and everything else: no number
        except Exception:  # noqa: BLE001, S110  # it may be a property of the program's
            pass
    return _json(fields).encode("ascii")


def _collectives(error: BaseException) -> "list[list[Any]]":
    """Only what torch has at hand: whatever goes wrong there, the error itself is to be told."""
    try:
        with _WithoutScriptDirectory():
            from rankguard.inside.recorder import recorded

            return recorded(_said(error))
    except Exception:  # noqa: BLE001  # another version of torch
        return []


# ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _name(kind: type) -> str:
    module, name = str(kind.__module__), str(kind.__qualname__)
    return name if module == "builtins" else f"{module}.{name}"


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001  # the program's own __str__
        return "<exception str() failed>"


def _line_of(error: BaseException) -> str:
    said = _said(error)
    return f"{_name(type(error))}: {said}" if said else _name(type(error))


def _frames(tb: "TracebackType | None", most: int) -> "list[str]":
    """The innermost `most` frames, innermost last; not runpy's, which `-m` puts before the program's own."""
    found: list[str] = []
    while tb is not None:
        code = tb.tb_frame.f_code
        if tb.tb_frame.f_globals.get("__name__") != "runpy":
            found.append(f"{code.co_filename[-500:]}:{tb.tb_lineno} {code.co_name[:200]}")
            if len(found) > 4 * most:
                del found[:-most]
        tb = tb.tb_next
    return found[-most:]


def _chain(error: BaseException) -> "Iterator[str]":
    """What led to it, as Python would show it: a group's leaves, then each cause or context, the root last."""
    seen = {id(error)}
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, BaseExceptionGroup):
            yield from _leaves(current)
        cause = current.__cause__
        if cause is None and not current.__suppress_context__:
            cause = current.__context__
        if cause is None or id(cause) in seen or len(seen) > CHAIN_LONGEST:
            return
        seen.add(id(cause))
        yield _line_of(cause)
        current = cause


def _middle_out(links: "list[str]", most: int) -> "list[str]":
    """The root decides who is to blame; it is among those that stay."""
    return links if len(links) <= most else links[: most // 2] + links[-(most - most // 2) :]


def _leaves(group: "BaseExceptionGroup[BaseException]") -> "Iterator[str]":
    waiting: list[BaseException] = list(group.exceptions)
    for _ in range(CHAIN_MOST):
        if not waiting:
            return
        error = waiting.pop(0)
        if isinstance(error, BaseExceptionGroup):
            waiting[:0] = error.exceptions
        else:
            yield _line_of(error)
            cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
            if cause is not None:
                yield _line_of(cause)


def _formatted(error: BaseException) -> str:
    with _WithoutScriptDirectory():
        return _format(error, sys.modules.get("traceback") or __import__("traceback"))


def _format(error: BaseException, traceback: "Any") -> str:
    depth, tb = 0, error.__traceback__
    while tb is not None:
        depth, tb = depth + 1, tb.tb_next
    if depth <= DEEP:
        return "".join(traceback.format_exception(error))
    lines = ["Traceback (most recent call last):\n", *traceback.format_tb(error.__traceback__, 32)]
    lines += [f"  [{depth - 128} frames more]\n", *traceback.format_tb(error.__traceback__, -96)]
    return "".join(lines + traceback.format_exception_only(error))


class _WithoutScriptDirectory:
    """What is imported in the block is the standard library's, even if the program has a file of that name. (From 3.13
    on Python itself would import the program's `traceback.py` to show an exception; now it finds the right one.)
    """

    def __enter__(self) -> None:
        self._path, main = sys.path, sys.modules.get("__main__")
        beside = os.path.dirname(os.path.realpath(getattr(main, "__file__", None) or "."))
        try:
            here = os.getcwd()
        except OSError:
            here = ""
        sys.path = [entry for entry in self._path if entry not in ("", beside, here)]

    def __exit__(self, *exc: object) -> None:
        sys.path = self._path


def _cut(text: str, most: int) -> str:
    """The head and the tail of a text that is longer than `most` bytes."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= most:
        return text
    head, tail = data[: most // 4], data[-(most - most // 4 - 64) :]
    note = f"\n  [{len(data) - len(head) - len(tail)} bytes more]\n"
    return head.decode("utf-8", "ignore") + note + tail.decode("utf-8", "ignore")


def _json(value: object) -> str:
    """`json.dumps` for what is sent here: its import may be impossible by now, and costs 4 ms at the start."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return '"' + "".join(map(_escaped, value)) + '"'
    if isinstance(value, dict):
        return "{" + ",".join(f"{_json(key)}:{_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    return repr(value)


def _escaped(char: str) -> str:
    number = ord(char)
    if 32 <= number < 127:
        return "\\" + char if char in '"\\' else char
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"
