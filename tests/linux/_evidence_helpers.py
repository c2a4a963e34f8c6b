"""Real processes and real control groups for the tests of evidence: ranks that grow, groups with a limit.

Everything waits for a message on a pipe or for a pidfd; what a test starts or makes, it ends and removes.
"""

import contextlib
import json
import mmap
import os
import select
import signal
import traceback

import pytest

from rankguard.linux.cgroup import JobGroups
from rankguard.linux.hierarchies import own_groups

MIB = 1 << 20
PATIENCE = 20.0
"""How long a test waits for what must come; reached only when it fails."""


class Rank:
    """A process in the rank's groups, holding `mib` of memory, that does what it is told over a pipe."""

    def __init__(self, groups, rank, body=None, join=True):
        order_r, self._order_w = os.pipe()
        self._answer_r, answer_w = os.pipe()
        fds = groups.join_fds(rank)
        self.pid = os.fork()
        if self.pid == 0:
            with dying():
                os.close(self._order_w)
                os.close(self._answer_r)
                for fd in fds if join else ():
                    os.write(fd, b"0")
                with contextlib.suppress(PermissionError), open("/proc/self/oom_score_adj", "w") as adj:
                    adj.write("500")  # the ranks alike, before the process that runs the test
                (body or obey)(order_r, answer_w)
        for fd in (*fds, order_r, answer_w):
            os.close(fd)
        self.pidfd = os.pidfd_open(self.pid)

    def tell(self, order):
        os.write(self._order_w, f"{order}\n".encode())

    def answer(self):
        assert wait_readable(self._answer_r), "the rank does not answer"
        return os.read(self._answer_r, 100).decode().strip()

    def ask(self, order):
        self.tell(order)
        return self.answer()

    def ended(self):
        """Waits for the end and leaves the zombie, as the supervisor looks before it reaps."""
        assert wait_readable(self.pidfd), "the rank does not end"

    def reap(self):
        self.ended()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self):
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        for fd in (self.pidfd, self._order_w, self._answer_r):
            os.close(fd)


def obey(orders, answers):
    """Reads orders until the pipe ends: `hold N` (MiB), `child N` (a child that holds N MiB), `ignore`."""
    held = []
    with os.fdopen(orders) as lines:
        for line in lines:
            verb, _, number = line.strip().partition(" ")
            if verb == "hold":
                held.append(hold(int(number)))
                os.write(answers, b"held\n")
            elif verb == "child":
                if (pid := os.fork()) == 0:
                    hold(int(number))
                    os._exit(0)
                os.write(answers, f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())
            elif verb == "fork":
                try:
                    if (pid := os.fork()) == 0:
                        os._exit(0)
                    os.waitpid(pid, 0)
                    os.write(answers, b"forked\n")
                except OSError as error:
                    os.write(answers, f"{error.errno}\n".encode())


def hold(mib):
    """Memory that is really there, page by page."""
    memory = mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, mib * MIB, mmap.PAGESIZE):
        memory[offset] = 1
    return memory


def wait_readable(fd, events=select.POLLIN):
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(PATIENCE * 1000))


@contextlib.contextmanager
def dying():
    """A forked child never returns into pytest."""
    try:
        yield
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(70)


@contextlib.contextmanager
def limited_group(limit_mib):
    """A memory group with a limit below our own, as a container would be; skips where none can be made."""
    own = own_groups()
    kind = "memory" if "memory" in own else "v2"
    if kind not in own:
        pytest.skip("no memory cgroup hierarchy is mounted")
    path = f"{own[kind].path}/rgtest-{os.getpid()}"
    limit = f"{path}/{'memory.limit_in_bytes' if kind == 'memory' else 'memory.max'}"
    try:
        if kind == "v2":
            for controller in ("+pids", "+memory"):
                with open(f"{own[kind].path}/cgroup.subtree_control", "w") as control:
                    control.write(controller)
        os.mkdir(path)
    except OSError as error:
        pytest.skip(f"cannot make a memory group: {error}")
    try:
        if not os.path.exists(limit):
            pytest.skip(f"{path} has no memory controller")
        with open(limit, "w") as file:
            file.write(str(limit_mib * MIB))
        yield path
    finally:
        os.rmdir(path)


def inside_limit(limit_mib, work):
    """The result of `work()`, run in a child inside a memory group with a limit; JSON carries it back."""
    with limited_group(limit_mib) as path:
        return inside(path, work)


def inside(path, work):
    """The result of `work()`, run in a forked child, in the group `path` if there is one."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with dying():
            if path:
                with open(f"{path}/cgroup.procs", "w") as procs:
                    procs.write("0")
            try:
                text = json.dumps({"result": work()})
            except BaseException:
                text = json.dumps({"error": traceback.format_exc()})
            os.write(writer, text.encode())
    os.close(writer)
    with os.fdopen(reader) as answers:
        said = answers.read()
    os.waitpid(pid, 0)
    data = json.loads(said)
    assert "error" not in data, data["error"]
    return data["result"]


@contextlib.contextmanager
def job(nprocs=2, run_id=None, own=None, ours=None, **hows):
    """Groups of a job with `nprocs` ranks that obey; all of it ended and removed afterwards. `hows`: for `Rank`."""
    name = run_id or f"t{os.getpid()}"
    ours = frozenset({os.getpid()}) if ours is None else ours
    groups = JobGroups.create(name, nprocs, ours) if own is None else JobGroups(f"rankguard-{name}", nprocs, ours, own)
    ranks = []
    try:
        ranks += [Rank(groups, rank, **hows) for rank in range(nprocs)]
        yield groups, ranks
    finally:
        for rank in ranks:
            rank.close()
        groups.remove()


def counts(groups, rank):
    """`oom_counts` as JSON can carry it: last two parts of the path, before, after, shared."""
    rose, readable = groups.oom_counts(rank)
    return [[[c.path.split("/")[-2:], c.before, c.after, c.shared] for c in rose], readable]
