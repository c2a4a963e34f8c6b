"""The manifests: their command lines are parsed by our own parser, always; their shape by Kubernetes' own schemas, where
the package that ships them is installed (`pip install kubernetes-validate`).
"""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.deploy.manifests import DEPLOY, MANIFESTS, SBATCH, command_lines, typed

from rankguard.cli import arguments, nodes, torchrun, verbs
from rankguard.http.routes import INDEX

VERSION = "1.34"
CLASSES = set(range(80, 87))
"""Of `--exit-codes class` (docs/causes.md)."""
NAMES = [path.name for path in MANIFESTS]


def by_name(name: str) -> Path:
    return DEPLOY / "kubernetes" / name


def parsed(words: list[str]) -> Any:
    """As `rankguard WORDS…` would; raises `UsageError`."""
    words = [re.sub(r"\$\((\w+)\)", "1", word) for word in words]  # Kubernetes puts the variable's value there
    verb, *rest = words
    if verb == "run":
        return arguments.parse(rest, {})
    return verbs.parse(verb, rest)


# ── Always ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", NAMES)
def test_command_lines_mean_something(name: str) -> None:
    lines = command_lines(by_name(name))
    assert lines
    for words in lines:
        asked = parsed(words)
        assert asked is not None
        if "--shutdown-timeout" in words:  # ours has to be over first, or the kubelet kills everything
            period = int(re.search(r"terminationGracePeriodSeconds: (\d+)", by_name(name).read_text())[1])
            assert asked.shutdown_timeout < period


@pytest.mark.parametrize("name", NAMES)
def test_what_every_manifest_has(name: str) -> None:
    text = by_name(name).read_text()
    for wanted in (
        "terminationMessagePolicy: FallbackToLogsOnError", "{medium: Memory, sizeLimit:", "name: RANKGUARD_HOME",
        "readOnlyRootFilesystem: true", "runAsNonRoot: true", "capabilities: {drop: [ALL]}", "emptyDir: {sizeLimit:",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert "preStop" not in re.sub(r"#.*", "", text)


@pytest.mark.parametrize("name", NAMES)
def test_probes_ask_for_pages_that_are_served(name: str) -> None:
    text = by_name(name).read_text()
    asked = set(re.findall(r"httpGet: \{path: (/\w+), port: rankguard\}", text))
    assert asked <= set(re.findall(r"^/\w+", INDEX, re.MULTILINE)), asked
    if "rankguard, containerPort" not in text:
        assert not asked
    for words in command_lines(by_name(name)):
        assert ("--http" in words) == ("{name: rankguard, containerPort: 8080}" in text)


@pytest.mark.parametrize("name", ["job.yaml", "jobset.yaml", "jobset-nodes.yaml"])
def test_exit_codes_are_classes_of_failures(name: str) -> None:
    values = [json.loads(text) for text in re.findall(r"values: (\[[\d, ]+\])", by_name(name).read_text())]
    named = [code for codes in values for code in codes]
    assert len(named) == len(set(named))
    assert set(named) <= CLASSES
    if name == "job.yaml":
        assert set(named) == CLASSES


def test_what_the_page_says_to_type_can_be_typed() -> None:
    lines = [line for line in typed(DEPLOY / "README.md") if re.match(r"(docker run .* )?rankguard ", line)]
    assert lines
    for line in lines:
        words = shlex.split(line.split(" | ")[0])
        words = words[words.index("rankguard") + 1 :]
        assert parsed(words or ["doctor"]) is not None


def test_the_image_s_own_words() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    entry, default = (
        json.loads(re.search(rf"^{what} (\[.*\])$", text, re.MULTILINE)[1]) for what in ("ENTRYPOINT", "CMD")
    )
    assert entry == ["rankguard"]
    assert parsed(default) is not None


# ── Several machines ─────────────────────────────────────────────────────────────────────────────────────────────


def several(name: str) -> list[SimpleNamespace]:
    """What is asked for by each command line of a manifest that runs ranks on several machines."""
    words = [each for each in command_lines(by_name(name)) if each[0] == "run"]
    return [parsed([re.sub(r"\$\(LWS_GROUP_SIZE\)", "2", word) for word in each]) for each in words]


@pytest.mark.parametrize(
    ("name", "env", "met", "number"),
    [
        ("leaderworkerset-run.yaml", {"LWS_LEADER_ADDRESS": "server-0.server.ns", "LWS_WORKER_INDEX": "1"},
         "server-0.server.ns", 1),
        ("jobset-nodes.yaml", {"JOB_COMPLETION_INDEX": "3"}, "train-workers-0-0.train", 3),
    ],
)  # fmt: skip
def test_each_pod_knows_which_node_it_is(name: str, env: dict[str, str], met: str, number: int) -> None:
    (asked,) = several(name)
    assert torchrun.placed(asked, env) == "join"
    found = nodes.nodes(asked, "join", 8, env)
    assert found.share is not None
    assert (found.share.host, found.share.port, found.share.node) == (met, 29500, number)
    assert found.said == ()


def test_the_first_pods_name_is_the_one_that_jobset_gives() -> None:
    """`<set>-<job>-<index of the job>-<index of the pod>.<subdomain, which is the set's name>` (JobSet's own reference)."""
    text = by_name("jobset-nodes.yaml").read_text()
    jobset = re.search(r"^  name: (\S+)", text, re.MULTILINE)[1]
    job = re.search(r"replicatedJobs:\n    - name: (\S+)", text)[1]
    assert f'"--rdzv-endpoint", "{jobset}-{job}-0-0.{jobset}:29500"' in text
    (asked,) = several("jobset-nodes.yaml")
    counts = {int(count) for count in re.findall(r"(?:parallelism|completions): (\d+)", text)}
    assert counts == {asked.nnodes[0]}


def test_ray_has_as_many_workers_as_nodes() -> None:
    (asked,) = several("kuberay.yaml")
    text = by_name("kuberay.yaml").read_text()
    assert (asked.on, dict(asked.resources)["GPU"]) == ("ray", int(asked.nproc_per_node))
    assert {int(count) for count in re.findall(r"[rR]eplicas: (\d+)", text)} == {asked.nnodes[0]}


@pytest.mark.parametrize("path", SBATCH, ids=lambda path: path.name)
def test_a_batch_script_is_one_and_its_command_means_something(path: Path) -> None:
    text = path.read_text()
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    told = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", text, re.MULTILINE))
    env = {"SLURM_CPUS_PER_TASK": told["cpus-per-task"], "SLURM_JOB_NUM_NODES": told["nodes"], "SLURM_SUBMIT_DIR": "/w"}
    line = re.search(r"^srun (?:.*\\\n)*.*$", text, re.MULTILINE)[0].replace("\\\n", " ")
    words = shlex.split(re.sub(r"\$(\w+)", lambda match: env[match[1]], line))
    asked = parsed(words[words.index("rankguard") + 1 :])

    slurm = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NODEID": "1", "SLURM_STEP_NODELIST": "gpu[03-06]"}
    found = nodes.nodes(asked, torchrun.placed(asked, slurm), 8, slurm)
    assert found.share is not None
    assert (found.share.host, found.share.node, found.share.count) == ("gpu03", 1, int(told["nodes"]))
    assert told["ntasks-per-node"] == "1"
    assert asked.shutdown_timeout < int(told["signal"].partition("@")[2])
    assert set(map(int, re.findall(r"\b8\d\b(?=[ |)])", text.partition("case ")[2]))) <= CLASSES


# ── Where the package is ─────────────────────────────────────────────────────────────────────────────────────────


def documents(path: Path) -> list[dict]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (it comes with kubernetes-validate)")
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def pods_of(document: dict) -> list[dict]:
    """The pods that a kind makes which Kubernetes itself does not know, as pods."""
    spec = document["spec"]
    if document["kind"] == "LeaderWorkerSet":
        templates = spec["leaderWorkerTemplate"]
        return [templates["leaderTemplate"]["spec"], templates["workerTemplate"]["spec"]]
    if document["kind"] == "RayJob":
        cluster = spec["rayClusterSpec"]
        return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    return []


@pytest.mark.parametrize("name", NAMES)
def test_the_schemas_of_kubernetes(name: str) -> None:
    """Strict: a field that Kubernetes does not know is an error. Of LeaderWorkerSet, JobSet and RayJob, whose own schemas no
    package ships, the pods and jobs inside are checked.
    """
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    checked = 0
    for document in documents(by_name(name)):
        inside = [document]
        if document["kind"] == "JobSet":
            jobs = document["spec"]["replicatedJobs"]
            inside = [{"apiVersion": "batch/v1", "kind": "Job", "metadata": {}} | job["template"] for job in jobs]
        elif document["kind"] in ("LeaderWorkerSet", "RayJob"):
            inside = [{"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": spec} for spec in pods_of(document)]
        for each in inside:
            validator.validate(each, VERSION, strict=True)
            checked += 1
    assert checked


@pytest.mark.parametrize("name", NAMES)
def test_what_names_each_other_is_there(name: str) -> None:
    """Volumes that are mounted, ports that are probed, containers that a rule names: schemas do not look at these."""
    for document in documents(by_name(name)):
        for pod in specs(document):
            containers = [*pod.get("initContainers", []), *pod["containers"]]
            volumes = {volume["name"] for volume in pod.get("volumes", [])}
            for container in containers:
                assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
                ports = {port["name"] for port in container.get("ports", [])}
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    asked = container.get(probe, {})
                    for way in ("httpGet", "tcpSocket"):
                        assert asked.get(way, {}).get("port", next(iter(ports), None)) in {*ports, None}
            text = json.dumps(document)
            named = set(re.findall(r'"containerName": "([^"]+)"', text))
            assert named <= {container["name"] for container in containers}
            assert volumes == {mount["name"] for each in containers for mount in each.get("volumeMounts", [])}


def specs(node: object) -> list[dict]:
    """Every pod's spec in a document."""
    if isinstance(node, list):
        return [found for each in node for found in specs(each)]
    if not isinstance(node, dict):
        return []
    if "containers" in node:
        return [node]
    return [found for each in node.values() for found in specs(each)]


def test_the_words_that_are_read_without_a_package_are_all() -> None:
    """`command_lines` finds what YAML has."""
    for path in MANIFESTS:
        found = []
        for document in documents(path):
            if document["kind"] == "RayJob":
                found.append(shlex.split(document["spec"]["entrypoint"])[1:])
            for pod in specs(document):
                for each in [*pod.get("initContainers", []), *pod["containers"]]:
                    words = [*each.get("command", []), *each.get("args", [])]
                    if words[:1] == ["rankguard"] and words[1:] not in found:
                        found.append(words[1:])
        assert found == command_lines(path)


def test_nothing_here_is_a_secret_or_a_place_of_ours() -> None:
    for path in [*DEPLOY.rglob("*.yaml"), DEPLOY / "Dockerfile"]:
        assert os.uname().nodename not in path.read_text().split()
        assert set(re.findall(r"image: (\S+?)/", path.read_text())) <= {"example.com"}
