"""Does a text or an exception say that a rank ended because another rank did?

A rank that only lost its peer is a victim: its report is often the first that anybody sees (`finally` blocks delay the
true one), so it is told apart by what it says, never by when. Being wrong costs differently: a missed victim can be
blamed in place of the culprit, a program's own error taken for a victim's hides the culprit. Hence: a table of the
exact words that runtimes print, and no match on words that programs use.

Not here: how much a victim counts (`failure_class.py`). Read next: `tracebacks.py`, `culprit.py`.
"""

import re
from collections.abc import Sequence

from rankguard.diagnosis.tracebacks import clean, last_traceback
from rankguard.model import ExceptionInfo


def peer_death(text: str, exception: ExceptionInfo | None = None) -> str | None:
    """The phrase that shows that a rank ended because of another one's death or absence; null if nothing does.

    With an `exception` only that is judged, together with the root of its chain; else `text`, the end of a log (or what
    the rank reported): the exception of its last traceback, or its last lines where no traceback ends it.
    """
    if exception is not None:
        return _of_exception(exception)
    lines = [line for line in clean(text) if line and not _NATIVE_FRAME.match(line)]
    tail = max(0, len(lines) - _TAIL)
    logged = last_traceback(lines)
    if logged and logged.line >= tail:
        after = next((i for i in range(logged.line + 1, len(lines)) if _FATAL.search(lines[i])), None)
        if after is None:
            return _of_exception(logged.exception)
        tail = after  # the runtime ended the process later, and for its own reason
    return _of_lines(lines[tail:])


def collective_timeout(text: str) -> str | None:
    """The phrase by which a runtime says that a rank waited in vain for the others; null if there is none.

    A monitored barrier says that a rank "failed to pass" when that rank died, too: then its reason decides.
    """
    barrier, given, reason = text.partition("Original exception:")
    if given and "monitoredBarrier" in barrier:
        found = _search(_TIMEOUTS, reason)
        return found and (_search(_TIMEOUTS, barrier) or found)
    return _search(_TIMEOUTS, text)


_TAIL = 15
"""A log's last lines that may tell why it ends."""
_LAST = 3
"""Those in which the bare words of an errno count: programs print and survive them all the time."""
_PHRASE = 160

_NATIVE_FRAME = re.compile(r"^\s*(frame #\d+:|#\d+ 0x|@\s+0x)")
_FATAL = re.compile(r"terminate called|^F\d{4} |Process group watchdog thread terminated")
_HANDLED = re.compile(
    r"(?i)\b(retry(?! count)|retrying|reconnect\w*|ignor\w+|will try again|DEBUG|INFO)\b|(?<!NCCL )\bWARN(ING)?\b"
    r"(?!.{0,200}Another worker is running into error)"  # XGBoost ends the process after this warning
)

# Exception types that mean it whatever their message. Source: CPython's errno subclasses of OSError; torch/distributed;
# ray.exceptions; vllm/v1/engine/exceptions.py.
_TYPES = frozenset(
    [
        "ConnectionResetError",
        "BrokenPipeError",
        "ConnectionAbortedError",
        "ConnectionRefusedError",
        "DistNetworkError",
        "ActorDiedError",
        "RayActorError",
        "ActorUnavailableError",
        "WorkerCrashedError",
        "OwnerDiedError",
        "NodeDiedError",
        "EngineDeadError",
    ]
)

# Built-in types by which programs report their own mistakes: a message about connections does not change that.
_MISTAKES = frozenset(
    [
        "ValueError",
        "TypeError",
        "KeyError",
        "IndexError",
        "LookupError",
        "AttributeError",
        "AssertionError",
        "NameError",
        "UnboundLocalError",
        "ZeroDivisionError",
        "OverflowError",
        "ImportError",
        "ModuleNotFoundError",
        "SyntaxError",
        "NotImplementedError",
        "MemoryError",
        "OutOfMemoryError",
        "RecursionError",
        "FileNotFoundError",
        "PermissionError",
        "FileExistsError",
        "IsADirectoryError",
        "JSONDecodeError",
        "UnicodeDecodeError",
        "UnicodeEncodeError",
    ]
)

# Of those a runtime raises some, too: jaxlib makes a ValueError of what its collectives say (xla, gloo_communicator.cc).
_NO_MISTAKE = re.compile(r"^(?:UNKNOWN|INTERNAL|UNAVAILABLE|ABORTED): Gloo \w+ failed: ")

# As the root of a chain these are ordinary control flow (an empty queue, a cancelled task), not the first error.
_CONTROL_FLOW = frozenset(
    ("Empty", "Full", "StopIteration", "StopAsyncIteration", "BlockingIOError", "InterruptedError", "CancelledError")
)

# Clients of services outside the job: what resets their connections is no rank.
_SERVICES = frozenset(("requests", "urllib3", "http", "urllib", "aiohttp", "httpx", "botocore", "huggingface_hub"))


def _table(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern) for pattern in patterns)


_RUNTIMES = _table(
    # gloo/transport/tcp/pair.cc, uv/…: "[…/pair.cc:534] Connection closed by peer [127.0.0.1]:10895"
    r"gloo/transport/\S+\] .*?(Connection closed by peer|[Cc]onnection reset by peer|Connection refused)",
    r"gloo/transport/\S+\] .*?(Broken pipe|Read error|Write error)",
    r"Gloo connectFullMesh failed",
    # nccl: src/misc/socket.cc, src/transport/net_ib.cc; the names of ncclResult_t
    r"remote process exited or there was a network error",
    r"ncclRemoteError",
    r"(?s)ncclSystemError.{0,200}?([Ss]ocket|Call to (recv|send|connect))",
    r"Connection closed by remote peer",
    r"Call to (recv|send|connect) from \S+ failed",
    r"NET/IB : Got completion from peer .{0,80} with error 12",
    # torch/csrc/distributed/c10d/NCCLUtils.cpp, ProcessGroupNCCL.cpp
    r"NCCL communicator was aborted",
    # torch/csrc/distributed/c10d/Utils.hpp, TCPStore.cpp, socket.cpp
    r"(recvValue|recvValueWithTimeout|recvVector|recvBytes|sendBytes|sendValue) failed",
    r"[Ff]ailed to recv, got 0 bytes",
    r"Connection was likely closed",
    r"The client socket has (failed to connect|timed out)",
    r"DistNetworkError",
    # jax: xla/pjrt/distributed/client.h, tsl coordination_service_agent.cc
    r"JAX distributed service detected fatal errors",
    r"another task died",
    r"Polled an error from coordination service",
    r"tasks are unhealthy \(stopped sending heartbeats\)",
    r"CoordinationService.{0,120}(UNAVAILABLE|Socket closed|unhealthy)",
    # xgboost/src/collective: result.cc (SafeColl), loop.cc; comm.cc, before it ends with 255
    r"/src/collective/result\.(?:cc|h):\d+: ",
    r"Encountered EOF\. The other end is likely closed",
    r"Another worker is running into error\.",
    # Open MPI (ULFM, btl/tcp, its daemons), PRRTE, MPICH
    r"MPI_ERR_(PROC_FAILED|REVOKED)",
    r"An MPI communication peer process has unexpectedly disconnected",
    r"\bmca_btl_tcp_\w+\b.{0,80}(recv|send|readv|writev)\(\S*\) failed",
    r"\b(ORTE|PRTE|PRRTE) has lost communication with",
    # ray/exceptions.py
    r"\b(ActorDiedError|RayActorError|WorkerCrashedError|OwnerDiedError)\b",
    r"The actor (died unexpectedly|is dead because)",
    # vllm/v1/engine, vllm executors, sglang engine: a parent that lost its worker
    r"\bEngineDeadError\b|EngineCore encountered an issue",
    r"(Worker proc|[Ss]cheduler|[Rr]ank \d+ scheduler)\b.{0,40}\b(died|is dead)\b",
    # UCX (ucs_status_string; uct/ib/mlx5/ib_mlx5_log.c; ucp_worker.c), NVSHMEM (its sockets are NCCL's), gRPC
    r"Connection reset by remote peer",
    r"Transport retry count exceeded on \S+",
    r"UCX\s+ERROR .{0,80}Endpoint (timeout|is not connected)",
    r"StatusCode\.UNAVAILABLE",
)

_TIMEOUTS = _table(
    # torch ProcessGroupGloo.cpp: it names the rank, and quotes gloo
    r"failed to pass monitoredBarrier",
    # torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp
    r"Watchdog caught collective operation timeout",
    r"Timeout at NCCL work",
    r"due to a collective timeout from",
    r"(failure|Exception \(either an error or timeout\)) detected by watchdog at work",
    r"watchdog got stuck for \d+ seconds",
    # gloo/transport/tcp/unbound_buffer.cc
    r"Timed out waiting \d+ ?ms for (recv|send) operation",
    r"Application timeout caused pair closure",
    # torch/csrc/distributed/c10d/TCPStore.cpp, rendezvous
    r"Timed out after \d+ seconds waiting for clients",
    r"wait timeout after \d+ms, keys:",
    r"Timed out initializing process group",
    # jax: xla coordination_service.cc
    r"DEADLINE_EXCEEDED: Barrier timed out|\bBarrier timed out\. (Barrier_id|Id):",
)

# strerror(3), and what libraries make of it: only where nothing better is known (see _LAST)
_ERRNO = _table(
    r"[Cc]onnection reset by peer",
    r"\bBroken pipe\b",
    r"[Cc]onnection closed by peer",
    r"\bConnection refused\b",
    r"Software caused connection abort",
    r"Transport endpoint is not connected",
)


def _of_exception(exception: ExceptionInfo) -> str | None:
    own = _is_peer_death(exception.type, exception.message, exception)
    if (exception.module or "").partition(".")[0] in _SERVICES:
        return None
    if not exception.chain:
        return _phrase(exception.type, exception.message) if own else None
    if _name(exception.type).endswith("Group"):
        return _of_group(exception)
    root_type, _, root_message = exception.chain[-1].partition(": ")
    root = _is_peer_death(root_type, root_message, exception)
    if own:
        # Raised while another error was on its way out (a `finally` that says goodbye to the peers): that came first.
        first = root or _name(root_type) in _CONTROL_FLOW
        return _phrase(exception.type, exception.message) if first else None
    if root and (_name(exception.type) not in _MISTAKES or "was the direct cause" in (exception.traceback or "")):
        return _phrase(root_type, root_message)
    return None


def _of_group(exception: ExceptionInfo) -> str | None:
    """Several at once: all of them have to be of a lost peer, and those that only follow (cancelled tasks) do not count."""
    parts = [(type_name, message) for type_name, _, message in (link.partition(": ") for link in exception.chain)]
    real = [part for part in parts if _name(part[0]) not in _CONTROL_FLOW]
    if not real or not all(_is_peer_death(*part, exception) for part in real):
        return None
    return _phrase(*real[0])


def _is_peer_death(type_name: str, message: str, whole: ExceptionInfo) -> bool:
    name = _name(type_name)
    if name in _TYPES:
        return True
    if name in _MISTAKES and not _NO_MISTAKE.search(message):
        return False
    if name in ("EOFError", "IncompleteReadError"):
        return _is_of_connection(message, whole)
    return any(_search(table, message) for table in (_RUNTIMES, _TIMEOUTS, _ERRNO))


def _is_of_connection(message: str, whole: ExceptionInfo) -> bool:
    """`multiprocessing` and `asyncio` raise an EOFError for a closed connection; files and pickles have words in it."""
    where = " ".join(whole.frames) + (whole.traceback or "")
    if where:
        return "multiprocessing" in where or "connection.py" in where or "asyncio" in where
    return not message or "connection" in message.lower()


def _of_lines(lines: Sequence[str]) -> str | None:
    for back, line in enumerate(reversed(lines)):
        if _HANDLED.search(line):
            continue
        tables = (_RUNTIMES, _TIMEOUTS, _ERRNO) if back < _LAST else (_RUNTIMES, _TIMEOUTS)
        for table in tables:
            if found := _search(table, line):
                return found
    return None


def _search(table: tuple[re.Pattern[str], ...], text: str) -> str | None:
    """The line of `text` in which a pattern of `table` is found, cut to a phrase that holds it."""
    for pattern in table:
        if found := pattern.search(text):
            start = text.rfind("\n", 0, found.start()) + 1
            line = text[start:].partition("\n")[0].strip() or found.group()
            return line if len(line) <= _PHRASE else found.group().replace("\n", " ")[:_PHRASE]
    return None


def _name(type_name: str) -> str:
    return type_name.rpartition(".")[2]


def _phrase(type_name: str, message: str) -> str:
    first = message.strip().partition("\n")[0]
    said = f"{_name(type_name)}: {first}" if first else _name(type_name)
    if len(said) <= _PHRASE:
        return said
    shown = next((found for table in (_RUNTIMES, _TIMEOUTS, _ERRNO) if (found := _search(table, message))), said)
    return shown[:_PHRASE]
