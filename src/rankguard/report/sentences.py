"""One entry of a journal in plain words: what a fact says, what an order does, in one line each.

An entry is data of others (somebody may have edited the file): whatever has not the shape that we write is told as what
it is, never an error. Not what is told together, nor when: `tale.py`.
"""

import json
import signal
from typing import Any

from rankguard.report import wording as say

Entry = dict[str, Any]


NAMES = "(names)"
"""Under `watch` an entry is given what its numbers stand for: a dict of number and name. No field of a journal is called so."""


def whose(entry: Entry, number: object) -> str:
    """`rank 3`; of a watched engine the name of its process."""
    names = entry.get(NAMES)
    return plain(names[number]) if isinstance(names, dict) and number in names else f"rank {plain(number)}"


def sentence(entry: Entry) -> str:  # noqa: C901, PLR0911, PLR0912  # one case a fact, as long as their list
    """One fact in words."""
    rank = whose(entry, entry["rank"]) if isinstance(entry.get("rank"), int) else "a rank"
    match entry["fact"]:
        case "JobStarted":
            memory = entry.get("memory")
            limit = as_number(memory.get("limit_bytes")) if isinstance(memory, dict) else None
            return "the job began" + (f"; its memory limit is {say.size(int(limit))}" if limit else "")
        case "NotSpawned":
            return f"{rank} could not be started: {plain(entry.get('statement'))}"
        case "FailureReported":
            report = entry.get("report")
            text = report.get("text") if isinstance(report, dict) else None
            lines = str(text or "").strip().splitlines()
            because = "; it lost a peer" if entry.get("peer_death") else ""
            return f"{rank} reported that it failed: {plain(lines[-1] if lines else 'no text')}{because}"
        case "ProtocolBroken":
            return f"{rank} broke the protocol: {plain(entry.get('statement'))}"
        case "Complained":
            return f"{rank} sent {_signal(entry.get('signal'))} to its parent"
        case "KernelKilled":
            record = entry.get("record")
            said = record.get("text") if isinstance(record, dict) else None
            victim = f"a process of {rank}" if isinstance(entry.get("rank"), int) else "a process that is none of ours"
            return f"the kernel's OOM killer ended {victim}: {plain(said)}"
        case "ReadinessExpected":
            return "somebody waits for readiness"
        case "StopRequested":
            sender = entry.get("sender")
            comm = sender.get("comm") if isinstance(sender, dict) else None
            pid = sender.get("pid") if isinstance(sender, dict) else None
            by = f" from {plain(comm)} (pid {pid})" if comm else f" from pid {pid}" if pid else ""
            by = " from the terminal" if isinstance(sender, dict) and not any(sender.values()) else by
            how = entry.get("by", "signal")
            name = _signal(entry.get("signal")) if how == "signal" else plain(how)
            return f"{name}{by}: asked to end"
        case "SignalPassed":
            return f"{_signal(entry.get('signal'))} came, which stops nothing"
        case "Suspended":
            return "asked to stand still (Ctrl-Z)"
        case "Resumed":
            return "asked to go on"
        case "TimeLost":
            return f"rankguard itself stood still for {plain(entry.get('seconds'))} s"
        case "FrontLost" | "WardenLost" | "SupervisorLost":
            return f"the {entry['fact'].removesuffix('Lost').lower()} is gone (pid {entry.get('pid')})"
        case "DeadlinePassed":
            return f"the clock `{plain(entry.get('name'))}` was over"
        case "Silences":
            told = [sign.get("rank") for sign in _list(entry.get("silent")) if isinstance(sign, dict)]
            silent = [(number, None) for number in told if isinstance(number, int)]
            return f"silent for so long: {say.many(silent)}" if silent else "no rank was silent for so long"
        case "Examined":
            return _examined(entry)
        case "Mustered":
            return _mustered(entry)
        case "Looked":
            return _looked(entry)
        case "KernelNoted":
            note = entry.get("note")
            of = f"of {rank}" if isinstance(entry.get("rank"), int) else "of no rank that is known"
            return f"the kernel log, {of}: {plain(note.get('text') if isinstance(note, dict) else None)}"
        case "Surveyed":
            return "looked at what the machine was like"
        case "GpusRead":
            count = f"told of {len(_list(entry.get('gpus')))} GPUs"
            why_not = plain(entry["why_not"]) if entry.get("why_not") else None
            return f"the GPUs' driver {count if why_not is None else f'told nothing: {why_not}'}"
        case "Judged":
            return _judged(entry, rank if isinstance(entry.get("rank"), int) else "no rank")
        case "TreeEmpty":
            return _empty(entry)
        case "Joined" if entry.get("formerly"):
            return (
                f"{plain(entry['formerly'])} (pid {plain(entry.get('pid'))}) is {plain(entry.get('name'))} from now on"
            )
        case "Joined":
            return f"{plain(entry.get('name'))} (pid {plain(entry.get('pid'))}) takes part from now on ({plain(entry.get('rule'))})"
        case "Perished":
            left = "" if entry.get("loud", True) else "; no word of it on the terminal"
            return f"{plain(entry.get('name'))} (pid {plain(entry.get('pid'))}) {ended(entry.get('ending'))}; left to its engine{left}"
        case "NodeJoined" | "NodeSilent" | "NodeHeard" | "NodeStopping" | "NodeLost" as fact:
            return _of_node(fact, entry)
        case "OomSeen":
            return f"the kernel told of an OOM in {say.cut_path(plain(entry.get('group')), 48)}: that there was one, not of whom"
        case "Degraded" | "Warned" | "MemoryShort" as fact:
            return f"{'rankguard degraded' if fact == 'Degraded' else 'warning'}: {plain(entry.get('statement'))}"
        case "MemoryEased":
            return plain(entry.get("statement"))
        case "StoppingAnnounced":
            return "the owner announced that it is stopping"
        case other:
            named = {k: v for k, v in entry.items() if k not in ("fact", "at", "rank", NAMES)}
            return f"{rank + ' ' if 'rank' in entry else ''}{plain(other)}{fields_of(named)}"


def _judged(entry: Entry, who: str) -> str:
    who = who if entry.get("node") is None else f"node {plain(entry['node'])}"
    basis = f"; {plain(entry['basis'])}" if entry.get("basis") else ""
    return f"judged: {who} failed first ({plain(entry.get('kind'))}{basis})"


def _of_node(fact: str, entry: Entry) -> str:
    name = f" ({plain(entry['name'])})" if entry.get("name") else ""
    node = f"node {plain(entry.get('node'))}{name}"
    silent = as_number(entry.get("silent_s"))
    time = f" for {say.seconds(silent)}" if silent is not None else ""
    match fact:
        case "NodeJoined":
            first, count = as_number(entry.get("first")), as_number(entry.get("count"))
            ranks = "" if first is None or count is None else f", with ranks {first:.0f} to {first + count - 1:.0f}"
            off = as_number(entry.get("uncertainty"))
            clock = f"; its clock is known to {say.seconds(off)}" if off else ""
            return f"{node} {'was measured anew' if entry.get('again') else f'joined{ranks}'}{clock}"
        case "NodeSilent":
            return f"nothing was heard of {node}{time}"
        case "NodeHeard":
            return f"{node} was heard again, after it had been silent{time}"
        case "NodeStopping":
            signal = _signal(entry.get("signal", 15))
            return f"the agent of {node} sent {signal} to its ranks: {plain(entry.get('because'))}"
        case _:
            what = "is missing" if entry.get("how") == "never" else "was lost"
            return f"{node} {what}: {plain(entry.get('statement'))}"


def _looked(entry: Entry) -> str:
    dying = [pair for pair in _list(entry.get("dying")) if isinstance(pair, list) and len(pair) == 2]
    told = [f"{whose(entry, number)} was on its way out ({plain(how)})" for number, how in dying]
    everybody = "every process that takes part" if entry.get(NAMES) else "all ranks"
    return f"looked at {everybody}: {say.some(told, 4) if told else 'none was on its way out'}"


def _examined(entry: Entry) -> str:
    many = len(_list(entry.get("groups")))
    found = f"; they do {many} different things" if many > 1 else "; all do the same" if many else ""
    saved = f" ({plain(entry['saved'])})" if entry.get("saved") else ""
    return f"looked at what all ranks do{found}{saved}"


def _mustered(entry: Entry) -> str:
    saved = f" ({plain(entry['saved'])})" if entry.get("saved") else ""
    return f"looked at the ranks that had not come to the collective{saved}"


def _empty(entry: Entry) -> str:
    killed, survivors, left = (_list(entry.get(key)) for key in ("killed", "survivors", "left"))
    parts = [f"{len(killed)} needed SIGKILL"] if killed else []
    for removed, word in ((False, "left behind"), (True, "removed")):
        named = [
            plain(each.get("path")) for each in left if isinstance(each, dict) and bool(each.get("removed")) is removed
        ]
        parts += [f"{word}: {say.some(named, 4)}"] if named else []
    what = f"{len(survivors)} processes refuse to die" if survivors else "no process is left"
    return "; ".join([what, *parts])


# ── Orders ───────────────────────────────────────────────────────────────────────────────────────────────────────


_CLOCKS = frozenset({"ready", "complaint", "hold", "settle", "engine", "left", "nodes", "grace", "shutdown"})
"""Those that a person waits for; the others bound our own work."""


def action(entry: Entry, began: float | None) -> str | None:  # noqa: C901, PLR0911  # one case an order
    """What was done, in words; None for what is no decision (a look, a reap, a word to the front)."""
    match entry.get("order"):
        case "Spawn":
            first, last = entry.get("first"), entry.get("last")
            if entry.get(NAMES):
                return "start the engine"
            return f"start rank {plain(first)}" if first == last else f"start ranks {plain(first)}-{plain(last)}"
        case "SignalAll":
            spared = [(n, None) for n in _list(entry.get("spare")) if isinstance(n, int)]
            everybody = "the engine" if entry.get(NAMES) else "all ranks"
            return f"{_signal(entry.get('signal'))} to {everybody}{f' but {say.many(spared)}' if spared else ''}"
        case "SignalRank":
            return f"{_signal(entry.get('signal'))} to rank {plain(entry.get('rank'))}"
        case "WakeAt":
            when = since_launch(as_number(entry.get("when")), began)
            shown = when is not None and entry.get("name") in _CLOCKS
            return f"the clock `{entry['name']}` runs until {when:.3f}" if shown else None
        case "Disarm":
            names = [name for name in _list(entry.get("names")) if name in _CLOCKS]
            return (
                f"the clock{'s' if len(names) > 1 else ''} {', '.join(f'`{n}`' for n in names)} stopped"
                if names
                else None
            )
        case "Examine":
            return "take the stacks of all ranks"
        case "Muster":
            return "see who has not come to the collective: stacks of those that have not said that it timed out"
        case "Sweep":
            left = "end what the engine has left behind" if entry.get(NAMES) else "end what the ranks have left behind"
            return "kill everything that is left" if entry.get("kill") else left
        case "GiveUp":
            return "give up on what refuses to end"
        case "Tell" if entry.get("what") == "all-ready":
            return "all ranks are ready"
        case "Tell" if entry.get("what") == "readiness-expected":
            return "from now on a rank that ends before it is ready has failed"
        case "Finish":
            return "write the verdict"
        case _:
            return None


def obvious(entry: Entry) -> bool:
    """Its reason is in its words, or in those of the fact."""
    because = entry.get("because")
    return (
        entry.get("order") in ("Spawn", "WakeAt", "Tell", "Finish") or not because or "asked to end by" in str(because)
    )


# ── Small ────────────────────────────────────────────────────────────────────────────────────────────────────────


def ended(ending: object) -> str:
    """How a process ended."""
    if not isinstance(ending, dict):
        return "ended, nobody knows how"
    if ending.get("kind") == "signal":
        core = " (core dumped)" if ending.get("core_dumped") else ""
        return f"ended by {plain(ending.get('signal') or _signal(ending.get('number')))}{core}"
    return f"ended with exit code {plain(ending.get('code'))}"


def _signal(number: object) -> str:
    try:
        return signal.Signals(number).name  # type: ignore[arg-type]  # whatever the file holds
    except (ValueError, TypeError):
        return f"signal {plain(number)}"


def plain(value: object) -> str:
    """Whatever the file holds, as text that commands no terminal."""
    return say.printable(str(value), 200)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def as_number(value: object) -> float | None:
    """Null for anything else, and for what no clock shows."""
    return float(value) if isinstance(value, int | float) and abs(value) < 1e15 else None


def since_launch(at: float | None, began: float | None) -> float | None:
    """Seconds; null where one of the two is not known."""
    return None if at is None or began is None else at - began


def fields_of(entry: Entry) -> str:
    """` (pid=4711, payload_bytes=0)`."""
    told = ", ".join(f"{plain(key)}={_short(value)}" for key, value in entry.items() if value not in (None, [], {}))
    return f" ({told})" if told else ""


def _short(value: object) -> str:
    return say.printable(value if isinstance(value, str) else json.dumps(value), 160)
