"""What Ray runs on each node: one actor, which starts that node's agent, keeps its stdin open, and tells its end.

It travels to the node by value (`rayplace.py`), so it uses the standard library only, and rankguard need not be
importable for Ray's own Python there. It supervises nothing: the agent does. When this process ends for any reason
(`ray.kill`, Ray's memory monitor, SIGKILL), the kernel closes the pipe, and the agent ends its ranks. It ends when its
raylet has: workers of Ray's own were seen alive 90 s after theirs was killed (2.60).

Read next: `rayplace.py`.
"""

import json
import os
import resource
import select
import socket
import stat
import subprocess
import sys
from typing import Any

HANDED_OUT = (
    "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR",
    "NEURON_RT_VISIBLE_CORES", "TPU_VISIBLE_CHIPS", "ASCEND_RT_VISIBLE_DEVICES", "HABANA_VISIBLE_MODULES",
)  # fmt: skip
"""Where Ray says which accelerators a bundle has (`ray/_private/accelerators`, 2.60)."""
WORKERS_OWN = ("RAY_RAYLET_PID", "RAY_JOB_ID", "RAY_LD_PRELOAD_ON_WORKERS", "SPT_NOENV")
"""What Ray tells a worker of itself. A command under `ray job submit` has it of the worker that runs it."""
PROBE_S = 60.0
TAIL = 2048


class RankguardAgent:
    """The holder of one node's agent."""

    def __init__(self) -> None:
        self.agent: subprocess.Popen[bytes] | None = None
        self.said_from = 0
        self.raylet = _parent_raylet()

    def start(self, order: str) -> dict[str, Any]:
        """Start the agent. `order` is JSON:

        `spec` (the JobSpec's data), `accelerators` (the bundle has some), `command` (the agent, or null for ours),
        `python` and `path` (the coordinator's Python, and the folder that its rankguard lies in), `version`.
        Returns `{"name"}`, the host's, or `{"failed", "hint"}`.
        """
        told = json.loads(order)
        spec, name = told["spec"], socket.gethostname()
        spec["node"], spec["run_dir"] = name, None
        spec["nofile"] = resource.getrlimit(resource.RLIMIT_NOFILE)
        if "HOSTNAME" in spec["env"]:
            spec["env"]["HOSTNAME"] = os.environ.get("HOSTNAME", name)
        for each in WORKERS_OWN:
            spec["env"].pop(each, None)
        if spec["env"].get("PYTHONBREAKPOINT", "").startswith("ray."):
            del spec["env"]["PYTHONBREAKPOINT"]  # Ray's own debugger, which finds no worker in a rank
        if told["accelerators"]:
            spec["env"] |= {each: os.environ[each] for each in HANDED_OUT if each in os.environ}
        if not os.path.isdir(spec["cwd"]):
            return {
                "failed": f"there is no folder `{spec['cwd']}` on {name}",
                "hint": "have the program at one path on every node: a shared file system, the image, or `ray job submit --working-dir .`",
            }
        # The environment is the job's, not that of Ray's worker: no RAY_JOB_ID, PYTHONBREAKPOINT or OMP_NUM_THREADS
        # of its own making; the same for the agent and, by the spec, for its ranks.
        environment = dict(spec["env"])
        command = told["command"]
        if command is None:
            command, added, refused = ours(told["python"], told["path"], told["version"], environment)
            if command is None:
                return {
                    "failed": f"rankguard {told['version']} is not installed on {name}: {refused}",
                    "hint": f"pip install 'rankguard[ray]=={told['version']}' on every node (or in their image)",
                }
            environment |= added
        _score_of_parent()
        self.said_from = _size_of_log()
        try:
            # A worker that Ray ends kills its own children first, and then its raylet the process group. The agent is
            # of neither (a shell waits for it, in a session of its own), so that it learns by its stdin and ends its
            # ranks in order. Our end of the pipe is close-on-exec, and this process forks nobody else.
            self.agent = subprocess.Popen(
                ["/bin/sh", "-c", '"$@"; exit $?', "sh", *command],
                stdin=subprocess.PIPE, stdout=2, env=environment, cwd="/", start_new_session=True,
            )  # fmt: skip
            assert self.agent.stdin is not None
            self.agent.stdin.write(json.dumps(spec).encode() + b"\n")
            self.agent.stdin.flush()
        except OSError as error:
            return {"failed": f"unable to start the agent on {name}: {error}", "hint": None}
        return {"name": name}

    def wait(self) -> dict[str, Any]:
        """`{"status", "said"}` when the agent has ended: as a shell has it, and its last words on stderr."""
        assert self.agent is not None
        assert self.agent.stdin is not None
        waiter, agent = select.poll(), os.pidfd_open(self.agent.pid)
        waiter.register(agent, select.POLLIN)
        if self.raylet is not None:
            waiter.register(self.raylet, select.POLLIN)
        if all(fd != agent for fd, _ in waiter.poll()):
            try:
                self.agent.stdin.write(b"the raylet of this node has ended, and with it what Ray had set aside\n")
                self.agent.stdin.close()
            except OSError:
                pass  # it has ended, too
            self.agent.wait()
            os._exit(1)  # nobody would hear of it
        os.close(agent)
        return {"status": self.agent.wait(), "said": _log_since(self.said_from)}


def _parent_raylet() -> int | None:
    """A pidfd of our raylet; null where it is not our parent (a container of a `runtime_env`)."""
    try:
        if os.environ.get("RAY_RAYLET_PID") == str(os.getppid()):
            return os.pidfd_open(os.getppid())
    except OSError:
        pass
    return None


def _score_of_parent() -> None:
    """Take the raylet's `oom_score_adj` back: Ray gives its workers 1000, so the kernel would end this holder of no
    memory, and with it all ranks of the node, before the rank that took too much; and ranks could not be put below
    their supervisor. What one has raised for itself one may lower again (proc(5)).
    """
    try:
        with open(f"/proc/{os.getppid()}/oom_score_adj", "rb") as parent, open("/proc/self/oom_score_adj", "wb") as own:
            own.write(parent.read())
    except OSError:
        pass


def ours(
    python: str, path: str, version: str, environment: dict[str, str]
) -> tuple[list[str] | None, dict[str, str], str]:
    """The command of our agent and what its environment needs more; or null, and why there is none.

    The coordinator's own Python goes first, where this node has it too, then the one that Ray's worker runs under;
    each as it is, then with the coordinator's package, where that can be read here (a shared file system).
    """
    refused = []
    for which in dict.fromkeys((python, sys.executable)):
        for folder in ("", path):
            if folder and not os.path.isdir(os.path.join(folder, "rankguard")):
                continue
            rest = [environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else []
            added = {"PYTHONPATH": os.pathsep.join([folder, *rest])} if folder else {}
            found = _version_of(which, environment | added)
            if found == version:
                return [which, "-P", "-m", "rankguard", "agent"], added, ""
            refused.append(f"`{which}`{f' with {folder}' if folder else ''} has {found}")
    return None, {}, "; ".join(refused)


def _version_of(python: str, environment: dict[str, str]) -> str:
    asked = [python, "-P", "-c", "from rankguard._version import __version__; print(__version__)"]
    try:
        told = subprocess.run(asked, env=environment, cwd="/", capture_output=True, timeout=PROBE_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"no answer ({error})"
    words = (told.stdout if told.returncode == 0 else told.stderr).decode(errors="replace").strip().splitlines()
    return words[-1] if words else f"no answer (exit {told.returncode})"


def _size_of_log() -> int:
    """Where our stderr ends, which is a file of Ray's, or -1 when it is something that cannot be read again."""
    found = os.fstat(2)
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


def _log_since(offset: int) -> str:
    if offset < 0:
        return ""
    try:
        with open("/proc/self/fd/2", "rb") as log:
            log.seek(max(offset, os.fstat(2).st_size - TAIL))
            return log.read(TAIL).decode(errors="replace").strip()
    except OSError:
        return ""
