"""The nouns of circumstances: what the machine was like when a job failed. Frozen values, no behaviour.

Looked at after the stop was ordered, so that a hint can give numbers and names (`diagnosis/hints/`). Unknown is null.
Read next: `supervisor/survey.py` (who looks), `linux/surroundings.py`, `linux/ports.py`, `linux/gpu_program.py`.
"""

from rankguard.record import Record


class Place(Record):
    """A file system, by a path on it. Bytes and inodes as statvfs(3) gives them to us; `mount` is where it is mounted."""

    path: str
    mount: str
    total: int
    free: int
    inodes: int
    inodes_free: int


class Host(Record):
    """What holds for the whole job. `container`: `kubernetes`, `docker`, `podman` or `container`."""

    container: str | None = None
    slurm_job: str | None = None
    oom_group: bool | None = None
    """The kernel kills the whole memory group at once (`memory.oom.group`)."""
    core_pattern: str | None = None
    core_limit: int | None = None
    """Bytes; -1 is unlimited (`ulimit -c`)."""
    processes_limit: int | None = None
    """RLIMIT_NPROC, of all processes and threads of the user; -1 is unlimited."""
    pids: tuple[int, int] | None = None
    """Processes and threads in the group with the tightest `pids.max`, and that limit."""
    shm: Place | None = None
    cpu: str | None = None
    cpu_lacks: tuple[str, ...] = ()
    """Of the instruction sets that builds are made for, those that this CPU does not have."""
    gpus: int | None = None
    """How many GPUs the environment of the job leaves to it."""
    program: str | None = None
    """What every rank executes, without its arguments."""
    venv: str | None = None
    """The virtual environment that the ranks' Python belongs to."""
    active_venv: str | None = None
    """The one that is activated where rankguard was started."""


class PortUse(Record):
    """Who holds a TCP port. `state`: `listening`, `connected`, `time-wait`, `held` (somehow else) or `free`."""

    port: int
    state: str
    pid: int | None = None
    name: str | None = None
    rank: int | None = None
    """The rank that the process is, or is below."""
    uid: int | None = None
    why_not: str | None = None
    """Why its holder is not known."""


class Core(Record):
    """The core file of a process. Its size is what it takes on the disk."""

    pid: int
    path: str
    bytes: int


class Module(Record):
    """A Python module by its first name. `shadow`: a file of that name beside the program; `found`: where it is installed."""

    name: str
    shadow: str | None = None
    standard: bool = False
    found: str | None = None


class GpuHolder(Record):
    """A process that holds memory of a GPU, as its driver tells; `rank` is the one that it is, or is below."""

    pid: int
    bytes: int | None = None
    name: str | None = None
    rank: int | None = None


class GpuState(Record):
    """One GPU as its driver tells. `lost`: it does not answer any more; `ecc`: uncorrected errors since it was started."""

    index: int
    uuid: str | None = None
    pci: str | None = None
    total: int | None = None
    used: int | None = None
    ecc: int | None = None
    lost: bool = False
    holders: tuple[GpuHolder, ...] = ()


class KernelNote(Record):
    """A line of the kernel log that is no OOM kill. `kind`: `segfault`, `trap` or `xid`.

    `pid` is that of the thread, of the initial PID namespace; `where` the file whose code it was in, of a GPU its PCI
    address; `number` the Xid; `text` the whole line.
    """

    kind: str
    text: str
    pid: int | None = None
    name: str | None = None
    where: str | None = None
    number: int | None = None
