"""What the GPUs' driver tells: memory, who holds it, errors, and which GPU does not answer any more.

By nvidia-ml-py where it is importable, else by nvidia-smi. Imports nothing of ours: it is also a program of its own,
which a supervisor executes so that the driver's library is loaded into no process that forks ranks, and which can be
ended when the driver does not answer (`gpus.py`). No CUDA context is made. Prints one JSON object.

Sources: nvml.h (NVML API reference), `nvidia-smi --help-query-gpu`, `--help-query-compute-apps`.
"""

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from shutil import which
from typing import Any

SMI_S = 8.0
_GPU = "index,uuid,pci.bus_id,memory.total,memory.used,ecc.errors.uncorrected.volatile.total"
_APPS = "gpu_uuid,pid,used_memory"
_LOST = ("GPUIsLost", "GpuIsLost", "ResetRequired")


def read(smi_s: float = SMI_S) -> dict[str, Any]:
    """`{"gpus": […], "source": "nvidia-ml-py"}`, or `{"gpus": [], "why_not": "…"}`. Memory is in bytes."""
    told, missing = by_library()
    if told is not None:
        return {"gpus": told, "source": "nvidia-ml-py"}
    told, refused = by_program(smi_s)
    if told is not None:
        return {"gpus": told, "source": "nvidia-smi"}
    return {"gpus": [], "source": "", "why_not": f"{missing}; {refused}"}


def by_library() -> tuple[list[dict[str, Any]] | None, str]:
    """The GPUs by NVIDIA's own bindings; or null and why not."""
    try:
        pynvml = import_module("pynvml")
    except ImportError:
        return None, "no nvidia-ml-py is installed"
    try:
        pynvml.nvmlInit()
    except Exception as error:  # noqa: BLE001  # a library of the driver's: none, another version, no rights
        return None, f"nvidia-ml-py: {error}"
    try:
        return [_one(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())], ""
    except Exception as error:  # noqa: BLE001  # as above
        return None, f"nvidia-ml-py: {error}"
    finally:
        _asked(pynvml.nvmlShutdown)


def _one(pynvml: Any, index: int) -> dict[str, Any]:
    """One GPU. One that is lost answers nothing but that; what a model does not have is null."""
    gpu: dict[str, Any] = {"index": index, "lost": False, "holders": []}
    handle, lost = _asked(pynvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return gpu | {"lost": lost}
    uuid, _ = _asked(pynvml.nvmlDeviceGetUUID, handle)
    pci, _ = _asked(pynvml.nvmlDeviceGetPciInfo, handle)
    memory, lost = _asked(pynvml.nvmlDeviceGetMemoryInfo, handle)
    ecc, _ = _asked(
        pynvml.nvmlDeviceGetTotalEccErrors,
        handle,
        pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
        pynvml.NVML_VOLATILE_ECC,
    )
    holders = {}
    for ask in (pynvml.nvmlDeviceGetComputeRunningProcesses, pynvml.nvmlDeviceGetGraphicsRunningProcesses):
        for each in _asked(ask, handle)[0] or ():
            holders[int(each.pid)] = each.usedGpuMemory
    return gpu | {
        "uuid": _text(uuid),
        "pci": _text(getattr(pci, "busId", None)),
        "total": None if memory is None else int(memory.total),
        "used": None if memory is None else int(memory.used),
        "ecc": None if ecc is None else int(ecc),
        "lost": lost,
        "holders": [{"pid": pid, "bytes": None if used is None else int(used)} for pid, used in holders.items()],
    }


def _asked(call: Callable[..., Any], *arguments: Any) -> tuple[Any, bool]:
    """The answer, or null and whether the GPU is lost."""
    try:
        return call(*arguments), False
    except Exception as error:  # noqa: BLE001  # not supported by this model, not permitted, lost
        name = type(error).__name__
        return None, any(each in name for each in _LOST)


def _text(value: Any) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def by_program(limit_s: float) -> tuple[list[dict[str, Any]] | None, str]:
    """The GPUs by the driver's program; or null and why not."""
    if which("nvidia-smi") is None:
        return None, "there is no nvidia-smi"
    try:
        gpus = parse_smi(_smi(f"--query-gpu={_GPU}", limit_s))
        apps = _smi(f"--query-compute-apps={_APPS}", limit_s) if gpus else ""
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"nvidia-smi: {type(error).__name__}"
    for line in apps.splitlines():
        uuid, pid, used = ([field.strip() for field in line.split(",")] + ["", "", ""])[:3]
        for gpu in gpus:
            if gpu["uuid"] == uuid and pid.isdecimal():
                gpu["holders"].append({"pid": int(pid), "bytes": int(used) << 20 if used.isdecimal() else None})
    return gpus, ""


def _smi(query: str, limit_s: float) -> str:
    words = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    ended = subprocess.run(
        words, capture_output=True, text=True, timeout=limit_s, check=True, stdin=subprocess.DEVNULL,
        preexec_fn=_die_with_us,  # whoever calls this has one thread
    )  # fmt: skip
    return ended.stdout


def _die_with_us() -> None:
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL: prctl(2)


def parse_smi(text: str) -> list[dict[str, Any]]:
    """Rows of `nvidia-smi --query-gpu`; memory there is in MiB. A row that is not understood is left out."""
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) < 5 or not fields[0].isdecimal():
            continue
        index, uuid, pci, total, used, ecc = (*fields, "")[:6]
        found.append(
            {
                "index": int(index),
                "uuid": uuid,
                "pci": pci,
                "total": int(total) << 20 if total.isdecimal() else None,
                "used": int(used) << 20 if used.isdecimal() else None,
                "ecc": int(ecc) if ecc.isdecimal() else None,
                "lost": any("lost" in field.lower() for field in fields),
                "holders": [],
            }
        )
    return found


if __name__ == "__main__":
    print(json.dumps(read(1.8)), file=sys.stdout, flush=True)  # noqa: T201  # this is its answer
