"""Every check of `doctor`, in the order of its groups. Ids are stable: scripts and docs/doctor.md name them."""

from rankguard.doctor import gpus, limits, memory, processes, storage, surroundings
from rankguard.doctor.check import Check

CHECKS: tuple[Check, ...] = (
    *processes.CHECKS,
    *memory.CHECKS,
    *limits.CHECKS,
    *storage.CHECKS,
    *surroundings.CHECKS,
    *gpus.CHECKS,
)


def checks_for(where: str | None) -> tuple[Check, ...]:
    """`k8s`: what concerns a pod, and of the rest what ranks cannot be run without."""
    if where is None:
        return CHECKS
    from rankguard.doctor import pod

    said = {check.id for check in pod.CHECKS}
    essential = [check for check in CHECKS if check.essential and f"pod-{check.id}" not in said]
    return (*pod.CHECKS, *(check for check in essential if check.id != "process-count"))
