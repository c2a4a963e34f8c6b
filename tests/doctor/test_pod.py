"""`doctor --for k8s`: each thing that a pod may lack, really taken away; its YAML is YAML, and gives what it says."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
import pytest
from tests.containers.box import (
    NO_KERNEL_LOG,
    READ_ONLY_CGROUPS,
    container,
    needs_container,
    needs_stranger,
    open_to_all,
)
from tests.doctor.machine import X86_64, command, examine, forbid
from tests.doctor.test_doctor import SCHEMA
from tests.linux._evidence_helpers import limited_group
from tests.others import AS_STRANGER

from rankguard.doctor import pod
from rankguard.doctor.catalogue import CHECKS, checks_for
from rankguard.linux.surroundings import place

FOR = ("--for", "k8s")
SHAPE = json.loads(json.dumps(SCHEMA))
SHAPE["properties"]["checks"]["items"]["properties"]["id"]["enum"] = [check.id for check in checks_for("k8s")]


def test_here(tmp_path: Path) -> None:
    found = examine(tmp_path, *FOR)

    jsonschema.Draft202012Validator(SHAPE).validate(found.told)
    assert [each for each in found.checks.values() if each["state"] == "unknown"] == []
    assert list(found.checks)[: len(pod.CHECKS)] == [check.id for check in pod.CHECKS]
    essential = {check.id for check in CHECKS if check.essential} - {"open-files", "process-count"}
    assert essential <= set(found.checks)
    assert found.told["can_run"]


def test_the_page_has_a_row_for_each_check() -> None:
    page = (Path(__file__).parents[2] / "docs" / "containers.md").read_text()
    rows = re.findall(r"^\| `(pod-[a-z-]+)` \| (.*?) \|", page, re.MULTILINE)
    assert rows == [(check.id, check.looks_at) for check in pod.CHECKS]


@needs_container
def test_a_pod_that_lacks_everything(tmp_path: Path) -> None:
    """As the strictest policy leaves it; each finding says what it costs and has YAML of its own."""
    setup = (READ_ONLY_CGROUPS, NO_KERNEL_LOG, "mount -t tmpfs -o size=64m,mode=1777 none /dev/shm",
             "mount -t tmpfs -o noexec none $TMPDIR")  # fmt: skip
    words, env = command(tmp_path, *FOR, "--json")
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]  # stays PID 1: a shell that runs one command would become it
    ended = subprocess.run(
        [*container(*setup), *shell, *words], env=env, capture_output=True, text=True, timeout=60, check=False,
        preexec_fn=forbid(101, 310) if X86_64 else None,  # ptrace; no threads here
    )  # fmt: skip
    found = {each["id"]: each for each in json.loads(ended.stdout)["checks"]}

    lacks = {name for name, each in found.items() if name.startswith("pod-") and each["state"] != "ok"}
    wanted = {"pod-first-process", "pod-termination-log", "pod-runs", "pod-shared-memory", "pod-cgroups",
              "pod-kernel-log", "pod-tmp"}  # fmt: skip
    depends = {"pod-oom-group", "pod-processes", "pod-memory-limit"}  # on where these tests run
    if place(str(tmp_path)).mount != "/":  # then the runs are on a volume
        wanted.remove("pod-runs")
    assert lacks - depends == wanted | ({"pod-ptrace"} if X86_64 else set())
    for name in lacks:
        assert found[name]["cost"]
        assert found[name]["cure"]
        assert found[name]["details"]["yaml"]
    assert "PID 1 is `sh`" in found["pod-first-process"]["found"]
    assert "64 MiB" in found["pod-shared-memory"]["found"]
    assert ended.returncode == 0  # ranks can be run all the same


@needs_stranger
def test_a_pod_that_has_what_the_manifests_give() -> None:
    """A volume for runs, memory for /dev/shm, rankguard as PID 1; as a stranger."""
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are closed to others
        words, env = command(Path(made), *FOR, "--json")
        open_to_all(made, f"{made}/home", f"{made}/tmp")
        setup = (
            "mount -t tmpfs -o mode=1777 none $RANKGUARD_HOME",
            "mount -t tmpfs -o size=1g,mode=1777 none /dev/shm",
        )
        ended = subprocess.run(
            [*container(*setup, then=AS_STRANGER), *words],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    found = {each["id"]: each for each in json.loads(ended.stdout)["checks"]}

    for name in ("pod-first-process", "pod-runs", "pod-shared-memory"):
        assert found[name]["state"] == "ok", found[name]
    assert found["pod-runs"]["found"].endswith(f"on the volume {env['RANKGUARD_HOME']}")


def test_a_memory_limit_is_seen(tmp_path: Path) -> None:
    with limited_group(512) as group:
        found = examine(tmp_path, *FOR, first=lambda: Path(group, "cgroup.procs").write_text("0"))

    assert found.checks["pod-memory-limit"]["state"] == "ok"
    assert found.checks["pod-memory-limit"]["found"].startswith("512 MiB (")


def test_the_yaml_is_printed_as_it_is_to_be_pasted(tmp_path: Path) -> None:
    words, env = command(tmp_path, *FOR)
    if os.path.exists("/dev/termination-log"):
        pytest.skip("this is a container of Kubernetes")
    ended = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)

    assert "\n".join(f"    {line}" for line in pod.LAST_WORD.splitlines()) in ended.stdout
    assert "YAML" not in ended.stdout


def yamls() -> dict[str, str]:
    return {
        name: text
        for name, text in vars(pod).items()
        if name[0] != "_" and name.isupper() and isinstance(text, str) and ":" in text
    }


@pytest.mark.parametrize("name", yamls())
def test_the_yaml_is_what_kubernetes_takes(name: str) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (it comes with kubernetes-validate)")
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    told = yaml.safe_load(yamls()[name])
    if told.get("kind") == "KubeletConfiguration":
        return  # the kubelet's own file: no API of the cluster has it
    spec = told.pop("spec", {}) | {key: told.pop(key) for key in ("containers", "volumes") if key in told}
    containers = [{"name": "c"} | each for each in spec.get("containers", [{}])]
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"} | told.pop("metadata", {})}
    validator.validate(whole | {"spec": spec | {"containers": containers}}, "1.34", strict=True)
    assert told == {}
    mounts = {mount["name"] for each in containers for mount in each.get("volumeMounts", [])}
    assert mounts == {volume["name"] for volume in spec.get("volumes", [])}


def test_usage(tmp_path: Path) -> None:
    words, env = command(tmp_path, "--for", "nomad")
    ended = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: `--for nomad`: expected k8s")
    assert sys.executable in words
