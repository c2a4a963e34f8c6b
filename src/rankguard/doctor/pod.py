"""`doctor --for k8s`: what a pod lacks, what that costs, and the lines of YAML that give it.

To be asked in the pod itself (`kubectl exec POD -- rankguard doctor --for k8s`), or by an image that does nothing else.
Most of it is found out by the doctor's own checks; here it is said in a pod's terms. A cure that is the node's, not the
pod's, says so. Read next: `page.py` (how it is shown), docs/containers.md.
"""

import os
import stat
from collections.abc import Callable

from rankguard.doctor import limits, memory, processes, storage
from rankguard.doctor.check import OK, Answer, Check, Machine, gib, limited, missing, ok
from rankguard.linux.container import TERMINATION_LOG
from rankguard.linux.files import read_text
from rankguard.linux.kmsg import in_init_pid_namespace
from rankguard.linux.leftovers import SHM
from rankguard.linux.memory import ADDRESS_SPACE, HOST, MemoryDomain
from rankguard.linux.surroundings import place

_BASE: dict[str, Check] = {
    check.id: check for module in (processes, memory, limits, storage) for check in module.CHECKS
}
_USUAL_SHM = 64 << 20
"""What a container runtime gives."""

RUNS = """\
containers:
  - env: [{name: RANKGUARD_HOME, value: /var/lib/rankguard}]
    volumeMounts: [{name: runs, mountPath: /var/lib/rankguard}]
volumes: [{name: runs, emptyDir: {sizeLimit: 2Gi}}]"""
SHARED_MEMORY = """\
containers:
  - volumeMounts: [{name: dshm, mountPath: /dev/shm}]
volumes: [{name: dshm, emptyDir: {medium: Memory, sizeLimit: 16Gi}}]"""
TMP = """\
containers:
  - volumeMounts: [{name: tmp, mountPath: /tmp}]
volumes: [{name: tmp, emptyDir: {}}]"""
FIRST = """\
containers:
  - command: [rankguard]
    args: [watch, --, vllm, serve, MODEL]"""
LAST_WORD = """\
containers:
  - terminationMessagePath: /dev/termination-log
    terminationMessagePolicy: FallbackToLogsOnError"""
LIMIT = """\
containers:
  - resources: {requests: {memory: 100Gi}, limits: {memory: 100Gi}}"""
TRACE = """\
containers:
  - securityContext: {capabilities: {add: [SYS_PTRACE]}}"""
KERNEL_LOG = """\
containers:
  - securityContext: {privileged: true}
    volumeMounts: [{name: kmsg, mountPath: /dev/kmsg, readOnly: true}]
volumes: [{name: kmsg, hostPath: {path: /dev/kmsg, type: CharDevice}}]"""
WRITABLE_GROUPS = """\
metadata: {annotations: {io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw: "true"}}
spec: {runtimeClassName: cgroup-writable}"""
ONE_AT_A_TIME = """\
kind: KubeletConfiguration
singleProcessOOMKill: true"""
MORE_PIDS = """\
kind: KubeletConfiguration
podPidsLimit: 16384"""


def _with(answer: Answer, yaml: str) -> Answer:
    return answer if answer.state == OK else answer.replace(details=(answer.details or {}) | {"yaml": yaml})


def _said(check: str, cure: str, yaml: str, cost: str | None = None) -> Callable[[Machine], Answer]:
    """The doctor's own check, its cure in a pod's terms."""

    def probe(machine: Machine) -> Answer:
        answer = _BASE[check].probe(machine)
        if answer.state == OK:
            return answer
        return _with(answer.replace(cure=cure, cost=cost or answer.cost), yaml)

    return probe


def _first_process(machine: Machine) -> Answer:
    name = (read_text("/proc/1/comm") or "?").strip()
    words = (read_text("/proc/1/cmdline") or "").split("\0")
    if in_init_pid_namespace():
        return ok(f"no container: PID 1 is the machine's `{name}`; ask in the pod")
    if name == "pause":
        return ok("PID 1 is `pause`: the pod's containers see one another's processes (shareProcessNamespace)")
    if machine.pid == 1 or "rankguard" in map(os.path.basename, words[:2]) or words[1:3] == ["-m", "rankguard"]:
        return ok("PID 1 is rankguard")
    answer = limited(
        f"PID 1 is `{name}`",
        "SIGTERM goes to PID 1 alone: a shell passes none on, so all is killed when the grace period is over",
        "start rankguard itself, or `exec rankguard …` as the last line of the script",
    )
    return _with(answer, FIRST)


def _last_word(_machine: Machine) -> Answer:
    cost = "`kubectl describe pod` shows no reason, and none at all when everything is killed at once"
    cure = "the default path; in a container that the kubelet has started it is there"
    try:
        mode = os.stat(TERMINATION_LOG).st_mode
    except OSError as error:
        return _with(missing(f"{TERMINATION_LOG}: {error.strerror}", cost, cure), LAST_WORD)
    if not stat.S_ISREG(mode) or not os.access(TERMINATION_LOG, os.W_OK):
        return _with(limited(f"{TERMINATION_LOG} cannot be written", cost, cure), LAST_WORD)
    return ok(f"{TERMINATION_LOG} can be written")


def _runs(machine: Machine) -> Answer:
    answer = _BASE["run-home"].probe(machine)
    kept = (answer.details or {}).get("path")
    if answer.state != OK:
        return _with(answer.replace(cure="a volume for the runs"), RUNS)
    where = place(str(kept))
    mount = where.mount if where is not None else "/"
    if mount != "/":
        return ok(f"{kept}, on the volume {mount}")
    answer = limited(
        f"{kept} is in the container's own layer",
        "a restarted container knows nothing of the last one: no `report`, no `explain`, no word of what killed it",
        "a volume for the runs: an emptyDir outlives the container, a claim the pod",
    )
    return _with(answer, RUNS)


def _shared_memory(machine: Machine) -> Answer:
    answer = _BASE["dev-shm"].probe(machine)
    size = (answer.details or {}).get("size_bytes") or 0
    if answer.state == OK and size > _USUAL_SHM:
        return answer
    found = answer.found if answer.state != OK else f"{SHM} has {gib(size)}, the runtime's default"
    answer = limited(
        found,
        "torch's data loaders and NCCL end by SIGBUS or with `No space left on device`",
        "an emptyDir of memory; it counts against the memory limit, and --clean-shm all empties it before a start",
    )
    return _with(answer, SHARED_MEMORY)


def _memory_limit(_machine: Machine) -> Answer:
    own = [limit for limit in MemoryDomain().limits if limit.source not in (HOST, ADDRESS_SPACE)]
    if own:
        return ok(f"{gib(own[0].bytes)} ({own[0].source})")
    answer = limited(
        "the container has no memory limit",
        "nothing warns before the node runs short: the kubelet evicts the pod, or the kernel kills any process of the node",
        "a limit, the same as the request",
    )
    return _with(answer, LIMIT)


_NODE = "the node, not the pod, decides: "
_G = "pod"
CHECKS = (
    Check("pod-first-process", _G, "who is PID 1, and whether the PID namespace is shared", _first_process),
    Check("pod-termination-log", _G, "/dev/termination-log", _last_word),
    Check("pod-runs", _G, "whether runs are kept on a volume", _runs),
    Check("pod-shared-memory", _G, "the size of /dev/shm", _shared_memory),
    Check("pod-memory-limit", _G, "whether there is a memory limit", _memory_limit),
    Check(
        "pod-oom-group", _G, "`memory.oom.group`",
        _said("oom-group", f"{_NODE}kubelet 1.32; else the sidecar of deploy/ outlives the kill, and what was written "
              "ahead into the termination log tells of it", ONE_AT_A_TIME),
    ),
    Check(
        "pod-cgroups", _G, "whether control groups can be written",
        _said("rank-groups", f"{_NODE}CRI-O by the annotation, containerd 2.1 by a runtime class with "
              "`cgroup_writable = true`", WRITABLE_GROUPS),
        lasting=True,
    ),
    Check(
        "pod-kernel-log", _G, "/dev/kmsg",
        _said("kernel-log", "only a privileged container may have it: worth it for GPU faults, not for OOM kills alone",
              KERNEL_LOG),
    ),
    Check("pod-ptrace", _G, "whether one process may look into another", _said(
        "ptrace", "CAP_SYS_PTRACE, where the node's Yama or the seccomp profile forbids it", TRACE)),
    Check("pod-tmp", _G, "whether temporary files can be written and executed", _said(
        "tmp", "an emptyDir at /tmp; or TMPDIR in a volume that is there", TMP)),
    Check(
        "pod-open-files", _G, "RLIMIT_NOFILE",
        _said("open-files", f"{_NODE}LimitNOFILE of the container runtime's service", "# containerd.service: LimitNOFILE=1048576"),
        essential=True,
    ),
    Check("pod-processes", _G, "how many processes and threads there may be",
          _said("process-count", f"{_NODE}the kubelet's limit for each pod", MORE_PIDS), essential=True),
)  # fmt: skip
"""In the order in which they are asked; `docs/containers.md` has a row for each."""
