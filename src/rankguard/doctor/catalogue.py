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
