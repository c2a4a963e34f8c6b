# ruff: noqa: INP001  # a script, not a package
"""Makes docs/causes.md: `PYTHONPATH=src python docs/make_causes.py`.

Families, owners, retry advice and exit statuses come from the code's own tables; what a kind means, how it is told and
what to do is written here. A test holds the page to both, and fails for a kind that has no row.
"""

import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from rankguard.case import Case  # noqa: E402  # the path comes first
from rankguard.diagnosis.advice import OWNERS, RETRY  # noqa: E402
from rankguard.diagnosis.exit_status import exit_code  # noqa: E402
from rankguard.diagnosis.kinds import FAMILIES  # noqa: E402
from rankguard.diagnosis.xids import FOLLOWS, MACHINE, PROGRAM, XIDS  # noqa: E402
from rankguard.jobspec import JobSpec  # noqa: E402
from rankguard.model import Family  # noqa: E402

PAGE = ROOT / "docs" / "causes.md"


class Told(NamedTuple):
    """What no table of the code says. `code`: the exit status with `--exit-codes culprit`."""

    means: str
    told: str
    proof: str
    do: str
    code: str


CODE, SIGNAL, ONE = "the rank's own", "128 + the signal", "1"

KINDS = {
    "oom-kill": Told(
        "The kernel ended the rank, or a process below it, since a memory limit was met. The victim is the largest process, often not the one that grew: that one is in `responsible`.",
        "SIGKILL (or a child's) that is not ours, with a counter of OOM kills that rose or a line of the kernel log.",
        "`proven`: the kernel log names its pid, or the counter of a group that holds this rank alone rose. `likely`: a counter that is shared with others rose.",
        "Raise the limit or let each rank hold less; the hint has both numbers, and the limit's name in Kubernetes, Slurm or Docker.",
        "137",
    ),
    "memory-limit": Told(
        "Memory was refused and the program gave up: RLIMIT_AS, MemoryError, `std::bad_alloc`, ENOMEM.",
        "The rank's report, its last traceback or the last lines of its log; `ERRNO=12`.",
        "`proven`: the rank's own report. `likely`: its log.",
        "Compare what it needs with `ulimit -v` and `ulimit -d`.",
        CODE,
    ),
    "cuda-oom": Told(
        "The GPU's memory did not suffice.",
        "The texts of torch's, CUDA's, HIP's and XLA's allocators.",
        "As `memory-limit`. Who else holds memory there is asked of the driver afterwards.",
        "End who else holds it (named, with pid and size), give each rank its own GPU, set `expandable_segments:True` where enough is reserved and unused, or lower the batch.",
        CODE,
    ),
    "exception": Told(
        "An uncaught Python exception of no kind that has a row of its own.",
        "The report of the rank's interpreter, torch's `@record` file, or the last traceback of its log.",
        "`proven`: its own report. `likely`: its log.",
        "Read the traceback. Common ones have hints: a port in use with its holder, a module that is missing or hidden by a file beside the program, a `__main__` guard, CUDA after a fork, too many open files, a model that asks for a token.",
        CODE,
    ),
    "exit-code": Told(
        "It ended with a code other than 0, and nothing is known of why.",
        "The wait status; no report and no traceback.",
        "The wait status: the kernel's own word.",
        "Read the end of its log. 128 + n is a shell's word for a signal inside the rank.",
        CODE,
    ),
    "exit-before-ready": Told(
        "It ended with 0 where readiness was expected of it, and it had not reported any.",
        "The wait status, and no readiness before it.",
        "Both are facts of the kernel and of the rank's channel.",
        "Let the rank report readiness, or look why it had nothing to do.",
        ONE,
    ),
    "crash": Told(
        "A signal of a fault: SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGQUIT, SIGSYS.",
        "The wait status; the kernel log's line where it can be read, with the library in whose code it was; faulthandler's frames in the log.",
        "The wait status.",
        "Look at the core (the hint has its path, or what it takes to get one), the library that is named, /dev/shm for SIGBUS, the CPU's instruction sets for SIGILL. torch may abort a rank that is done (`terminate called without an active exception`): the hint says how a rank frees its group first.",
        SIGNAL,
    ),
    "reported-failure": Told(
        "The rank said that it failed: `failed(…)`, `ERRNO=n`, or a signal to its parent by which engines complain.",
        "Its message, or the sender of the signal.",
        "`proven`: its own word. `likely`: a signal to its parent.",
        "Its words are the cause; they are in the statement.",
        ONE,
    ),
    "protocol-error": Told(
        "What came through its channel has no meaning, or the channel ended while the process lives.",
        "The bytes, or the end of the pipe, and a short look whether it is ending.",
        "What was read.",
        "Look at what writes to NOTIFY_SOCKET or to the pipe.",
        ONE,
    ),
    "cannot-start": Told(
        "The program was not executed.",
        "The step that failed in the child (fork, cgroup, chdir, exec) and the errno of the kernel.",
        "The errno.",
        "By errno: `chmod +x`, PATH, the folder, the limit of processes or files. Where several ranks fail alike the lowest is named.",
        "126, 127 (not found), 125 (a limit)",
    ),
    "ready-timeout": Told(
        "It was not ready within `--ready-timeout`.",
        "The clock, and what all ranks did when it rang.",
        "The clock.",
        "Read what it was doing; raise the limit, or let it send EXTEND_TIMEOUT_USEC if it is only slow.",
        "124",
    ),
    "stall": Told(
        "No sign of progress for `--stall-timeout`; the rank that is named holds the others up.",
        "Signs of life, use of the CPU, and the stacks of all ranks, compared ([hangs](hangs.md)).",
        "`proven`: the kernel says that it is stopped or traced. `likely`: its stack differs, or it has been silent much longer.",
        "Read the stacks. If it is slow and well, let it say so.",
        "124",
    ),
    "collective-timeout": Told(
        "Ranks gave up waiting for another one in a collective; order proves nothing here.",
        "The texts of NCCL, Gloo and TCPStore.",
        "`proven`: the rank's own report of the time-out. Who did not come is `likely` at best.",
        "Look at the rank that did not come; NCCL_DEBUG=INFO tells more.",
        CODE + ", or 134 of an abort",
    ),
    "killed": Told(
        "A signal that is neither ours nor the OOM killer's nor a fault's: `kill -9`, a batch system, systemd-oomd.",
        "The wait status, and OOM counters that stood still.",
        "`proven`: the counters could be read. `likely`: they could not. Who sent it no wait status says.",
        "Ask `sacct`, `kubectl describe pod` or `journalctl`, whichever is there.",
        SIGNAL,
    ),
    "gpu-error": Told(
        "The GPU or its driver failed, not the program.",
        "An Xid of the kernel log that is the machine's ([below](#xids)), a GPU that the driver calls lost, or CUDA's own texts.",
        "`proven`: the Xid names a process of the rank, or the rank reported it. `likely`: an Xid without a process, or a lost GPU, and the rank's words speak of CUDA.",
        "Run elsewhere; reset the GPU or drain the machine, as the hint says.",
        CODE,
    ),
    "disk-full": Told(
        "No space, no inodes or no quota is left.",
        "ENOSPC and EDQUOT: by their texts or by `ERRNO=n`.",
        "`proven`: the rank's own report. `likely`: its log.",
        "Free space on the file system that the hint names, with its numbers.",
        CODE,
    ),
    "node-lost": Told(
        "A machine of a job on several is gone, or did not come in time. The culprit has no rank, and its node's name. In the verdict of a node that was cut off it is the coordinator's node.",
        "Its agent's connection was closed before it had said that it is done; nothing was heard of it for `--node-timeout`; it said why it goes; it had not joined within `--join-timeout`.",
        "`proven`: it was the first news of a failure. `likely`: ranks had complained of a lost peer before; silence takes longer to be a loss.",
        "Look at that machine and its network. A rank's own failure that came before is the culprit instead; where clocks cannot tell, the other one is in `either`.",
        ONE,
    ),
    "supervisor-lost": Told(
        "One of our own processes was killed, and the job was ended for it.",
        "Its pidfd.",
        "The kernel's word that it is gone.",
        "Look who killed it: `journalctl`, the memory limit.",
        "125",
    ),
    "bug": Told(
        "A fault of rankguard.",
        "Its own traceback.",
        "The traceback.",
        "Report it, with the file that the message names.",
        "125",
    ),
    "unknown": Told(
        "Nothing is known of why it ended; ignorance is said aloud.",
        "Nothing that any other row needs was there.",
        "None.",
        "Read the logs of the ranks in `either`.",
        f"{CODE}, else 1",
    ),
}  # fmt: skip

HEAD = """# Causes

Made by `docs/make_causes.py` from the tables of `src/rankguard/diagnosis/`. Do not edit it by hand: `make docs` writes
it anew.

`cause.kind` is one of these; `cause.family` is its heading. Consumers ignore kinds that they do not know: kinds may be
added, families not. `confidence` is `proven` (the kernel's own word, or the rank's own report), `likely` (what fits) or
`unknown`. Retry and owner are those of the kind; a hint that knows better overrules them, as a limit of open files
(owner `limits`) does for an exception. A rank that fails because a peer was lost keeps its kind; its owner is null.

`exit` is the exit status: with `--exit-codes culprit` (the default), and behind the slash with `--exit-codes class`,
where 80 is before and 81 after all ranks were ready.
"""

FINGERPRINT = """## Fingerprint

`verdict.fingerprint` is the same for the same failure, on any machine and in any folder: a hash of the kind, the phase,
the type of the exception (of a crash the signal) and the three innermost frames of the program as `file function`, in
order. Frames of installed packages, of the standard library and of ours are left out, unless there are no others. The
frames are those of the exception, of faulthandler's last words, or of the stack in which a rank hangs. No pid, host,
path, line or other number goes in, and no message, since messages hold numbers.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for family in Family:
        kinds = [kind for kind, of in FAMILIES.items() if of is family]
        parts.append(f"## {family.value}\n")
        parts += [_section(kind) for kind in kinds]
    return "\n".join([*parts, _xids(), FINGERPRINT])


def _section(kind: str) -> str:
    told, family = KINDS[kind], FAMILIES[kind]
    advice, because = RETRY[kind]
    rows = {
        "means": told.means,
        "told by": told.told,
        "proof": told.proof,
        "do": told.do,
        "exit": f"{told.code} / {_class(kind)}",
        "owner": f"`{OWNERS[family]}`" if OWNERS[family] else "null",
        "retry": f"`{advice}`: {because}",
    }
    lines = [f"### `{kind}`", "", "| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items())]
    return "\n".join(lines) + "\n"


def _class(kind: str) -> str:
    """Asked of the code itself."""
    spec = JobSpec(run_id="", command=(), argv=(), nprocs=0, env={}, cwd="", exit_codes="class")
    before = Case(spec=spec, started_at=0.0, started_wall=0.0, now=2.0, ranks=())
    told = [exit_code(case, None, kind) for case in (before, before.replace(all_ready_at=1.0))]
    return " or ".join(map(str, dict.fromkeys(told)))


def _xids() -> str:
    words = {MACHINE: "the machine's: `gpu-error`", PROGRAM: "the program's: evidence", FOLLOWS: "follows from another"}
    rows = [f"| {number} | {xid.meaning} | {words[xid.whose]} | {xid.do or '—'} |" for number, xid in XIDS.items()]
    head = "NVIDIA's driver writes them to the kernel log. What a process writes there itself is not believed. A number that is not here is shown and decides nothing."
    return "\n".join(["## Xids", "", head, "", "| Xid | means | whose | do |", "|---|---|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
