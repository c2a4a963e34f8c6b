"""Hints about GPUs and what runs on them: memory, Xid errors, device numbers, NCCL.

Sources of the texts: torch's `CUDACachingAllocator.cpp` (2.0 to 2.13), cuda_runtime_api.h, NCCL's `init.cc` and
`ProcessGroupNCCL.cpp`. GPU numbers of a message are those that the rank sees (CUDA_VISIBLE_DEVICES); the driver's are
said to be the driver's.
"""

import re

from rankguard.diagnosis.hints import Row, Told
from rankguard.diagnosis.words import several, size
from rankguard.diagnosis.xids import MACHINE, PROGRAM, XIDS

_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = r"([\d.]+) (bytes|[KMGT]iB)"
_HOLDER = 256 << 20
"""Less than that is a context, or a desktop."""


def _memory_numbers(told: Told) -> str:
    """What was asked for and what there was, by the allocator's own message."""
    asked, capacity, free = (
        _number(pattern, told.words)
        for pattern in (
            rf"Tried to allocate {_SIZE}",
            rf"(?:total capacity of {_SIZE}|{_SIZE} total capacity)",
            rf"(?:of which {_SIZE} is free|{_SIZE} free)",
        )
    )
    lower = "lower the batch size or the share of GPU memory for caches"
    if asked is None or capacity is None:
        return f"{lower}; `nvidia-smi` shows who else holds memory there"
    gpu = re.search(r"GPU (\d+)", told.words)
    where = f" on GPU {gpu[1]}" if gpu else ""
    left = f" with {size(free)} free" if free is not None else ""
    return f"{lower}: {size(asked)} more were asked for{left} of {size(capacity)}{where}"


def _fragmented(told: Told) -> str | None:
    """What torch keeps and does not use would have been enough."""
    asked = _number(rf"Tried to allocate {_SIZE}", told.words)
    kept = _number(rf"{_SIZE} is reserved by PyTorch but unallocated", told.words)
    if kept is None:
        allocated = _number(rf"{_SIZE} already allocated", told.words)
        reserved = _number(rf"{_SIZE} reserved in total", told.words)
        kept = reserved - allocated if reserved is not None and allocated is not None else None
    if asked is None or kept is None or kept < asked:
        return None
    return f"set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True: {size(kept)} are reserved by torch and not in use"


def _others_on_gpu(told: Told) -> str | None:
    """Processes that are no ranks of ours and hold memory there."""
    found = told.case.gpus
    others = [
        (gpu.index, each)
        for gpu in (found.gpus if found else ())
        for each in gpu.holders
        if each.rank is None and (each.bytes or 0) >= _HOLDER
    ]
    if not others:
        return None
    told_of = "; ".join(
        f"pid {each.pid}" + (f" ({each.name})" if each.name else "") + f" {size(each.bytes or 0)} of GPU {index}"
        for index, each in sorted(others, key=lambda pair: -(pair[1].bytes or 0))[:3]
    )
    return f"end who else holds GPU memory, by the driver's numbers: {told_of}"


def _own_ranks_on_gpu(told: Told) -> str | None:
    """Two ranks of ours on one GPU."""
    for gpu in told.case.gpus.gpus if told.case.gpus else ():
        ranks = sorted({each.rank for each in gpu.holders if each.rank is not None and (each.bytes or 0) >= _HOLDER})
        if len(ranks) > 1:
            which = several(told.case, ranks[:4])
            return f"let each rank use its own GPU (`torch.cuda.set_device(LOCAL_RANK)`): {which} hold memory of GPU {gpu.index}"
    return None


def _of_machine(told: Told) -> str:
    for noted in told.case.notes:
        if noted.note.number in XIDS and XIDS[noted.note.number].whose == MACHINE:
            xid = XIDS[noted.note.number]
            return f"run it on another machine; here: {xid.do} (GPU {noted.note.where}, Xid {noted.note.number})"
    return "run it on another machine, and look for Xid messages on this one: `dmesg | grep -i xid`, `nvidia-smi -q`"


def _uncorrected(told: Told) -> str | None:
    bad = [gpu for gpu in (told.case.gpus.gpus if told.case.gpus else ()) if gpu.ecc]
    if not bad:
        return None
    return f"GPU {bad[0].index} ({bad[0].pci}) has had {bad[0].ecc} uncorrected ECC errors since it was started: have it looked at"


def _of_program(told: Told) -> str | None:
    """The kernel log blames the program's own use of the GPU; or its words do."""
    for noted in told.case.notes:
        known = XIDS.get(noted.note.number or 0)
        if known is not None and known.whose == PROGRAM and noted.rank in (None, told.rank.rank):
            return f"{known.do}: Xid {noted.note.number} says {known.meaning}"
    if told.found is None:
        return None
    return "run again with CUDA_LAUNCH_BLOCKING=1, so that the traceback names the call, or under `compute-sanitizer`"


def _ordinal(told: Told) -> str:
    count = told.host.gpus
    if not count:
        return "start no more ranks than there are GPUs (`-n gpu`), and look at CUDA_VISIBLE_DEVICES"
    ranks = len(told.case.ranks)
    return f"start no more ranks than there are GPUs: {ranks} ranks, {count} GPU{'s' if count != 1 else ''} for this job (`-n gpu`)"


def _duplicate_gpu(told: Told) -> str:
    return "let each rank use its own GPU (`torch.cuda.set_device(LOCAL_RANK)`), and start no more ranks than GPUs (`-n gpu`)"


def _nccl_shm(told: Told) -> str | None:
    shm = told.host.shm
    if shm is None or shm.total > 1 << 30:
        return None
    return (
        f"give /dev/shm more room: it has {size(shm.total)}, and NCCL keeps buffers there (`docker run --shm-size=8g`)"
    )


def _nccl_interface(told: Told) -> str:
    return "name the network interface that all nodes share in NCCL_SOCKET_IFNAME (`ip -br address` lists them)"


def _nccl_debug(told: Told) -> str:
    return "run again with NCCL_DEBUG=INFO: NCCL then says what it was doing, and which call failed"


def _number(pattern: str, text: str) -> float | None:
    found = re.search(pattern, text)
    if found is None:
        return None
    value, unit = [each for each in found.groups() if each is not None][-2:]
    return float(value) * _UNITS[unit]


FIRST = (
    Row(_of_machine, None, ("gpu-error",)),
    Row(_uncorrected, None, ("gpu-error",)),
    Row(_others_on_gpu, None, ("cuda-oom",)),
    Row(_own_ranks_on_gpu, None, ("cuda-oom",)),
    Row(_fragmented, None, ("cuda-oom",)),
    Row(_memory_numbers, None, ("cuda-oom",)),
)
ROWS = (
    Row(_ordinal, r"invalid device ordinal", retry=("no", "the same rank would ask for the same GPU that is not there")),
    Row(_duplicate_gpu, r"Duplicate GPU detected", retry=("no", "the same ranks would share the same GPU")),
    Row(
        _of_program,
        r"illegal memory access|device-side assert|misaligned address|unspecified launch failure|CUDA_ERROR_ILLEGAL",
        ("exception", "crash", "exit-code"),
    ),
    Row(_of_program, None, ("exception", "crash", "exit-code")),
    Row(_nccl_shm, r"ncclSystemError|unhandled system error|ncclUnhandledSystemError"),
    Row(_nccl_interface, r"no socket interface found|ncclRemoteError|NCCL.*(?:Connection refused|No route to host)|socketStartConnect"),
    Row(_nccl_debug, r"\bncclSystemError|\bncclInternalError|\bncclInvalidUsage|unhandled (?:system|cuda) error|NCCL error|ncclUnhandled|Watchdog caught collective"),
)  # fmt: skip
