"""GPUs that a program may use, on machines made of files: what the kernel's own would say."""

import os
from pathlib import Path

import pytest

from rankguard.linux import devices
from rankguard.linux.devices import Gpu, amd_gpus, nvidia_gpus, selected, visible_gpus, why_none, xpus

UUIDS = ["GPU-aaaa1111-0", "GPU-aaaa2222-1", "GPU-bbbb3333-2", "GPU-cccc4444-3"]
PCIS = ["0000:07:00.0", "0000:0b:00.0", "0000:87:00.0", "0000:8b:00.0"]
NODES = [0, 0, 1, -1]


def put(root: Path, path: str, text: str = "") -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def nvidia(root: Path, *, files=range(4)) -> str:
    """Four GPUs as the driver lists them; `files`: those whose device file this container was given."""
    for minor, (pci, uuid, node) in enumerate(zip(PCIS, UUIDS, NODES, strict=True)):
        put(root, f"proc/driver/nvidia/gpus/{pci}/information",
            f"Model: \t\t NVIDIA H100 80GB HBM3\nGPU UUID: \t {uuid}\nBus Location: \t {pci}\nDevice Minor: \t {minor}\n")  # fmt: skip
        put(root, f"sys/bus/pci/devices/{pci}/numa_node", f"{node}\n")
    for name in ("nvidiactl", "nvidia-uvm", *(f"nvidia{n}" for n in files)):
        put(root, f"dev/{name}")
    return str(root)


def amd(root: Path) -> str:
    """A CPU node and two GPUs; a third whose render file was not given."""
    put(root, "dev/kfd")
    rows = [(0, 0, 0, 0), (304, 128, 0xC100, 11), (304, 129, 0x2300, 12), (304, 130, 0x4300, 13)]
    for node, (simds, render, location, unique) in enumerate(rows):
        put(root, f"sys/class/kfd/kfd/topology/nodes/{node}/properties",
            f"cpu_cores_count 0\nsimd_count {simds}\nlocation_id {location}\ndomain 0\ndrm_render_minor {render}\n"
            f"unique_id {unique}\n")  # fmt: skip
    for render in (128, 129):
        put(root, f"dev/dri/renderD{render}")
    return str(root)


def pcis(gpus) -> list[str | None]:
    return [gpu.pci for gpu in gpus]


def test_all_that_the_driver_lists(tmp_path):
    found = nvidia_gpus(nvidia(tmp_path))

    assert found == tuple(Gpu(pci, uuid) for pci, uuid in zip(PCIS, UUIDS, strict=True))
    assert [devices.numa_node(gpu.pci, str(tmp_path)) for gpu in found] == [0, 0, 1, 0]


def test_a_container_has_only_the_files_that_it_was_given(tmp_path):
    assert pcis(nvidia_gpus(nvidia(tmp_path, files=(1, 3)))) == [PCIS[1], PCIS[3]]


def test_a_container_without_gpus_sees_the_list_but_no_file(tmp_path):
    root = nvidia(tmp_path, files=())

    assert visible_gpus({}, root) == ()
    assert why_none({}, root).startswith("the driver knows 4, but no `/dev/nvidia0` is here")


def test_device_files_without_a_list_count_too(tmp_path):
    for name in ("nvidia0", "nvidia7", "nvidiactl", "nvidia-modeset", "nvidia-caps"):
        put(tmp_path, f"dev/{name}")

    assert nvidia_gpus(str(tmp_path)) == (Gpu(), Gpu())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0,1,2,3", [0, 1, 2, 3]),
        ("3,1", [3, 1]),
        (" 2 , 0 ", [2, 0]),
        ("", []),
        ("-1", []),
        ("1,-1,2", [1]),
        ("0,4,1", [0]),
        ("0,0", []),
        ("1gpu,2", [1, 2]),
        ("none", []),
        ("NoDevFiles", []),
        ("GPU-cccc,GPU-aaaa1", [3, 0]),
        ("GPU-aaaa", []),
        ("GPU-zzzz", []),
        ("GPU-bbbb3333-2,GPU-bbbb", []),
    ],
)  # fmt: skip
def test_what_cuda_visible_devices_leaves(tmp_path, text, expected):
    root = nvidia(tmp_path)

    assert pcis(visible_gpus({"CUDA_VISIBLE_DEVICES": text}, root)) == [PCIS[n] for n in expected]


def test_of_slices_a_process_sees_the_first(tmp_path):
    root = nvidia(tmp_path)

    assert len(visible_gpus({"CUDA_VISIBLE_DEVICES": "MIG-1f,MIG-2f"}, root)) == 1


def test_uuids_of_gpus_whose_own_are_not_known():
    assert selected((Gpu(), Gpu()), "GPU-a,GPU-b") == (Gpu(), Gpu())
    assert selected((), "GPU-a") == ()


def test_an_empty_list_is_the_reason(tmp_path):
    assert why_none({"CUDA_VISIBLE_DEVICES": ""}, nvidia(tmp_path)) == "`CUDA_VISIBLE_DEVICES=` leaves none"


def test_amd(tmp_path):
    root = amd(tmp_path)

    assert amd_gpus(root) == (Gpu("0000:c1:00.0", "GPU-000000000000000b"), Gpu("0000:23:00.0", "GPU-000000000000000c"))
    for env, expected in [
        ({"HIP_VISIBLE_DEVICES": "1"}, ["0000:23:00.0"]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ["0000:23:00.0"]),
        ({"HIP_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "1"}, ["0000:c1:00.0"]),
        ({"ROCR_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0"}, ["0000:23:00.0"]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-000000000000000c"}, ["0000:23:00.0"]),
        ({"ROCR_VISIBLE_DEVICES": ""}, []),
    ]:
        assert pcis(visible_gpus(env, root)) == expected, env


def test_intel(tmp_path):
    for name, vendor in [("renderD128", "0x8086"), ("renderD129", "0x10de"), ("renderD130", "0x8086")]:
        put(tmp_path, f"sys/class/drm/{name}/device/vendor", f"{vendor}\n")
        put(tmp_path, f"dev/dri/{name}")
    put(tmp_path, "sys/class/drm/card0/device/vendor", "0x8086\n")

    assert len(xpus({}, str(tmp_path))) == 2
    assert len(xpus({"ZE_AFFINITY_MASK": "1.0,1.1"}, str(tmp_path))) == 1


def test_this_machine():
    """Whatever it has: as many as there are device files, unless a variable says less."""
    files = [name for name in os.listdir("/dev") if name.startswith("nvidia") and name[6:].isdecimal()]

    assert len(nvidia_gpus()) == len(files)
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()
