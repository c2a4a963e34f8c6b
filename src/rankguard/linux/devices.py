"""The GPUs that the ranks of this process's job may use, and where they sit: read from the kernel's files.

Not torch's view (importing it costs seconds and, with some versions, opens the devices), nor the driver's library: what
`/proc/driver/nvidia`, `/dev`, the KFD topology and DRM say, and what the environment leaves of it. `root` stands before
every path, for tests and for looking into a container from outside.

Sources: CUDA C++ Programming Guide, "CUDA Environment Variables"; the driver's README, "Device files" and "The /proc
interface"; ROCm, "GPU isolation techniques"; Linux `drivers/gpu/drm/amd/amdkfd/kfd_topology.c`; torch 2.13
`cuda/__init__.py` for ids that repeat or are no ids. Read next: `numa.py`.
"""

import os
import re
from collections.abc import Mapping, Sequence

from rankguard.linux.files import listed, read_text
from rankguard.record import Record

INTEL = "0x8086"


class Gpu(Record):
    """One GPU: its PCI address (`0000:07:00.0`) and its UUID, null where nobody says."""

    pci: str | None = None
    uuid: str | None = None


def visible_gpus(env: Mapping[str, str], root: str = "") -> tuple[Gpu, ...]:
    """NVIDIA's or else AMD's, in the order in which a program of that environment numbers them."""
    found = nvidia_gpus(root)
    if found:
        return selected(found, env.get("CUDA_VISIBLE_DEVICES"))
    found = amd_gpus(root)
    # ROCR_VISIBLE_DEVICES is applied first, by the runtime below HIP, which counts what is left of it.
    return selected(selected(found, env.get("ROCR_VISIBLE_DEVICES")), _of_hip(env)[1])


def visible_ids(env: Mapping[str, str]) -> tuple[tuple[str, ...], list[str] | None]:
    """The variables that tell a rank its GPU, and the ids in them as they are written; null when there is no limit.

    On ROCm HIP_VISIBLE_DEVICES goes before CUDA_VISIBLE_DEVICES, so where it is set both are to be told.
    """
    name, text = _of_hip(env)
    names = ("CUDA_VISIBLE_DEVICES",) if name == "CUDA_VISIBLE_DEVICES" else (name, "CUDA_VISIBLE_DEVICES")
    return names, None if text is None else [part.strip() for part in text.split(",")]


def why_none(env: Mapping[str, str], root: str = "") -> str:
    """The reason, as text, why `visible_gpus` is empty."""
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        if name in env and (nvidia_gpus(root) or amd_gpus(root)):
            return f"`{name}={env[name]}` leaves none"
    told = len(listed(f"{root}/proc/driver/nvidia/gpus"))
    if told:
        return f"the driver knows {told}, but no `/dev/nvidia0` is here, as in a container that was given none"
    return "there is none in `/proc/driver/nvidia`, `/dev` or `/sys/class/kfd`"


def selected(gpus: Sequence[Gpu], text: str | None) -> tuple[Gpu, ...]:
    """What a list as in CUDA_VISIBLE_DEVICES leaves: numbers, or UUIDs that may be shortened; the first that means
    nothing ends it, one that comes twice leaves none. Null: all.
    """
    if text is None:
        return tuple(gpus)
    chosen: list[Gpu] = []
    seen: set[object] = set()
    for part in text.split(","):
        meant = _meant(part.strip(), gpus)
        if meant is None:
            break
        key, gpu = meant
        if key in seen:
            return ()
        seen.add(key)
        chosen.append(gpu)
        if part.strip().startswith("MIG-"):
            break  # a process sees the first slice only
    return tuple(chosen)


def nvidia_gpus(root: str = "") -> tuple[Gpu, ...]:
    """Those that the driver lists and whose device file is here, in PCI order. A container sees the driver's list of
    the whole machine, but only the files that it was given.
    """
    minors = {int(name[6:]) for name in listed(f"{root}/dev") if re.fullmatch(r"nvidia\d+", name)}
    found = []
    for pci in sorted(listed(f"{root}/proc/driver/nvidia/gpus")):
        told = _colon_fields(read_text(f"{root}/proc/driver/nvidia/gpus/{pci}/information") or "")
        uuid, minor = told.get("GPU UUID", "?"), told.get("Device Minor", "")
        if minor.isdecimal() and int(minor) in minors:
            minors.discard(int(minor))
            found.append(Gpu(pci.lower(), None if "?" in uuid else uuid))
    return (*found, *(Gpu() for _ in minors))  # a driver without its list, as in some sandboxes


def amd_gpus(root: str = "") -> tuple[Gpu, ...]:
    """Nodes of the KFD topology with SIMDs whose render file is here."""
    if not os.path.exists(f"{root}/dev/kfd"):
        return ()
    nodes = f"{root}/sys/class/kfd/kfd/topology/nodes"
    found = []
    for node in sorted((name for name in listed(nodes) if name.isdecimal()), key=int):
        told = _numbers(read_text(f"{nodes}/{node}/properties") or "")
        render = told.get("drm_render_minor", 0)
        if not told.get("simd_count") or not os.path.exists(f"{root}/dev/dri/renderD{render}"):
            continue
        where, domain = told.get("location_id", 0), told.get("domain", 0)
        pci = f"{domain:04x}:{where >> 8 & 0xFF:02x}:{where >> 3 & 0x1F:02x}.{where & 7:x}"
        found.append(Gpu(pci, f"GPU-{told['unique_id']:016x}" if told.get("unique_id") else None))
    return tuple(found)


def xpus(env: Mapping[str, str], root: str = "") -> tuple[Gpu, ...]:
    """Intel GPUs with a render file, as far as ZE_AFFINITY_MASK leaves them."""
    found = []
    for name in sorted(listed(f"{root}/sys/class/drm")):
        device = f"{root}/sys/class/drm/{name}/device"
        ours = name.startswith("renderD") and (read_text(f"{device}/vendor") or "").strip() == INTEL
        if ours and os.path.exists(f"{root}/dev/dri/{name}"):
            found.append(Gpu(os.path.basename(os.path.realpath(device))))
    mask = env.get("ZE_AFFINITY_MASK")
    if not mask:
        return tuple(found)
    wanted = {part.partition(".")[0].strip() for part in mask.split(",")}
    return tuple(gpu for number, gpu in enumerate(found) if str(number) in wanted)


def numa_node(pci: str | None, root: str = "") -> int:
    """The NUMA node that a PCI device is attached to. A machine with one node often says -1, which is 0."""
    text = (read_text(f"{root}/sys/bus/pci/devices/{pci}/numa_node") or "").strip()
    return int(text) if text.isdecimal() else 0


def _of_hip(env: Mapping[str, str]) -> tuple[str, str | None]:
    if "HIP_VISIBLE_DEVICES" in env:
        return "HIP_VISIBLE_DEVICES", env["HIP_VISIBLE_DEVICES"]
    return "CUDA_VISIBLE_DEVICES", env.get("CUDA_VISIBLE_DEVICES")


def _meant(part: str, gpus: Sequence[Gpu]) -> tuple[object, Gpu] | None:
    """The GPU that one id of a list means, with what tells it from others."""
    if part.startswith("MIG-"):
        return part, Gpu()
    if part.startswith("GPU-"):
        found = [n for n, gpu in enumerate(gpus) if gpu.uuid is not None and gpu.uuid.startswith(part)]
        if len(found) == 1:
            return found[0], gpus[found[0]]
        known = all(gpu.uuid is not None for gpu in gpus)
        return None if known or not gpus else (part, Gpu())
    number = re.match(r"\+?(\d+)", part)  # as strtoul(3) reads it: `1gpu` is 1, `-1` and `gpu` are nothing
    if number is None or int(number[1]) >= len(gpus):
        return None
    return int(number[1]), gpus[int(number[1])]


def _colon_fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _colon, value in pairs}


def _numbers(text: str) -> dict[str, int]:
    """Lines of `name number`."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
