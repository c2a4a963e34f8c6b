"""Checks of GPUs: which are here, which this job may use, who holds them and their memory.

By nvidia-ml-py where it is importable, else by nvidia-smi, else by the kernel's files alone. No CUDA context is made.
"""

import os
from shutil import which
from typing import Any

from rankguard.doctor.check import Answer, Check, Machine, gib, limited, missing, ok
from rankguard.linux import gpu_program
from rankguard.linux.devices import amd_gpus, nvidia_gpus, visible_gpus, why_none, xpus
from rankguard.linux.files import read_text


def _gpus(_machine: Machine) -> Answer:
    here = nvidia_gpus() or amd_gpus() or xpus(os.environ)
    if not here:
        if os.path.isdir("/proc/driver/nvidia") or which("nvidia-smi"):
            return missing(
                why_none(os.environ), "ranks cannot use a GPU", "docker run --gpus all; nvidia-container-toolkit"
            )
        return ok("none")
    seen = visible_gpus(os.environ) or xpus(os.environ)
    found = f"{len(here)} here, {len(seen)} for this job"
    if not seen:
        return limited(
            f"{len(here)} here; {why_none(os.environ)}", "`-n gpu` has no ranks", "unset the variable, or correct it"
        )
    return ok(found, gpus=[{"pci": gpu.pci, "uuid": gpu.uuid} for gpu in here])


def _memory(_machine: Machine) -> Answer:
    """Memory in use where no job of ours runs yet is somebody else's."""
    if not nvidia_gpus():
        return ok("no NVIDIA GPU")
    read = gpu_program.read()
    told = [gpu for gpu in read["gpus"] if gpu["total"] is not None and gpu["used"] is not None]
    source = read["source"]
    if not told:
        return limited(
            "neither nvidia-ml-py nor nvidia-smi answers",
            "reports do not say how much GPU memory was in use, and by whom", "pip install nvidia-ml-py",
        )  # fmt: skip
    held = _holders()
    names = [
        f"GPU {gpu['index']}: {gib(gpu['used'])} of {gib(gpu['total'])} in use"
        for gpu in told
        if gpu["used"] > max(1 << 30, gpu["total"] // 20)
    ]
    by = "; ".join(
        f"pid {each['pid']} ({each['name']}, uid {each['uid']}) has {', '.join(each['devices'])} open"
        for each in held[:6]
    )
    details: dict[str, Any] = {"gpus": told, "holders": held, "source": source}
    if names:
        return limited(
            f"{'; '.join(names)}" + (f"; {by}" if by else "; no process that we can see holds it"),
            "ranks run out of GPU memory (`cuda-oom`) although they need no more than usual",
            "end who holds it; where nobody does: another container has it, or nvidia-smi --gpu-reset by an operator",
            **details,
        )
    return ok(f"{len(told)} with all their memory free ({source})" + (f"; {by}" if by else ""), **details)


def _holders(proc: str = "/proc") -> list[dict[str, Any]]:
    """Processes that have a GPU's file open, as far as we may look (`/proc/PID/fd`)."""
    found = []
    for pid in filter(str.isdecimal, os.listdir(proc)):
        try:
            targets = {os.readlink(f"{proc}/{pid}/fd/{fd}") for fd in os.listdir(f"{proc}/{pid}/fd")}
            uid = os.stat(f"{proc}/{pid}").st_uid
        except OSError:
            continue
        devices = sorted(each for each in targets if each.startswith("/dev/nvidia") and each[11:].isdecimal())
        if devices:
            name = (read_text(f"{proc}/{pid}/comm") or "?").strip()
            found.append({"pid": int(pid), "uid": uid, "name": name, "devices": devices})
    return found


CHECKS = (
    Check("gpus", "gpus", "GPUs that are here, and those that the environment leaves to this job", _gpus),
    Check("gpu-memory", "gpus", "memory in use, and who has a GPU open", _memory, limit_s=10.0),
)
