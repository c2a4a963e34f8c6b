"""Was it the GPU? What the kernel log (Xid) and the driver tell of a rank's GPU, as causes and evidence.

An Xid that names a process of the rank is the kernel's own word: `proven`. One that names none, and a GPU that the
driver calls lost, count for a rank whose own words speak of CUDA: `likely`. Numbers that a program's own fault brings
(`xids.py`) are evidence and blame no machine. Read next: `hints/gpu.py`.
"""

from rankguard.case import Case, RankCase
from rankguard.circumstances import KernelNote
from rankguard.diagnosis.evidence import ended_by_itself, report_of, said, wait_status
from rankguard.diagnosis.kinds import make
from rankguard.diagnosis.wants import GPU
from rankguard.diagnosis.words import clip, during, who
from rankguard.diagnosis.xids import MACHINE, XIDS
from rankguard.model import Cause, Confidence, Evidence


def gpu_error(case: Case, rank: RankCase) -> Cause | None:
    """The rank failed by itself, and its GPU had failed."""
    if not (case.notes or case.gpus) or not (ended_by_itself(rank) or report_of(rank)):
        return None
    report = report_of(rank)
    if report is not None and report.how != "exception":
        return None
    for note, sure in _xids(case, rank):
        if note.number in XIDS and XIDS[note.number].whose == MACHINE:
            statement = f"{who(case, rank)} lost its GPU{during(rank)}: Xid {note.number}, {XIDS[note.number].meaning}"
            confidence = Confidence.PROVEN if sure else Confidence.LIKELY
            return make("gpu-error", statement, confidence, (*_evidence(note), *wait_status(rank)), rank=rank)
    lost = [gpu for gpu in case.gpus.gpus if gpu.lost] if case.gpus else []
    if lost and case.gpus and GPU.search(said(rank)):
        which = f"GPU {lost[0].index}" + (f" ({lost[0].pci})" if lost[0].pci else "")
        evidence = (Evidence(source=case.gpus.source, statement=f"{which} is lost"), *wait_status(rank))
        statement = f"{who(case, rank)} failed{during(rank)}, and {which} does not answer any more"
        return make("gpu-error", statement, Confidence.LIKELY, evidence, rank=rank)
    return None


def xid_evidence(case: Case, rank: RankCase) -> tuple[Evidence, ...]:
    """What the kernel log says of the rank's GPU, whoever is to blame for it."""
    return tuple(each for note, _sure in _xids(case, rank)[:2] for each in _evidence(note))


def crash_evidence(case: Case, rank: RankCase) -> tuple[Evidence, ...]:
    """The kernel log's line about the crash: of the rank's process, or the only one left where no line names it."""
    told = [each for each in case.notes if each.note.kind in ("segfault", "trap")]
    own = [each.note for each in told if each.rank == rank.rank]
    if own:
        return _evidence(own[-1])
    nobody = [each.note for each in told if each.rank is None]
    crashed = [each for each in case.ranks if each.exited and each.exited.ending.number in (4, 7, 8, 11)]
    if len(nobody) == 1 and len(crashed) == 1:
        return (Evidence(source="kernel log", statement=clip(f"likely of a thread of it: {nobody[0].text}")),)
    return ()


def _xids(case: Case, rank: RankCase) -> list[tuple[KernelNote, bool]]:
    """Those of this rank, and whether the log names its process; of the others those that name none."""
    told = [each for each in case.notes if each.note.kind == "xid"]
    own = [(each.note, True) for each in told if each.rank == rank.rank]
    if own or not GPU.search(said(rank)):
        return own
    return [(each.note, False) for each in told if each.rank is None and each.note.pid is None]


def _evidence(note: KernelNote) -> tuple[Evidence, ...]:
    return (Evidence(source="kernel log", statement=clip(note.text)),)
