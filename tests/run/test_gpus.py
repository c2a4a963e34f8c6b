"""What a GPU's driver tells after a failure: by nvidia-smi as a script of ours, and by the real nvidia-ml-py on a library
of ours. On a machine that has a GPU the real driver answers, and these tests say nothing.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.run.command import Ended, Ranks
from tests.run.test_hints import hints

pytestmark = pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="a real driver answers here")
OOM = """
class OutOfMemoryError(RuntimeError): pass
OutOfMemoryError.__module__ = "torch"
text = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.20 GiB is free."
if RANK == 1:
    raise OutOfMemoryError(text)
signal.pause()
"""
LOST = "if RANK == 1:\n    raise RuntimeError('CUDA error: unspecified failure of the device')\nsignal.pause()"
LIBRARY = Path(__file__).parents[1] / "linux" / "nvml.c"
SMI = """#!/bin/sh
case "$1" in
*query-gpu*) echo "0, GPU-1f, 00000000:3B:00.0, 81559, 81000, 0" ;;
*query-compute-apps*) {apps} ;;
esac
"""


def with_smi(folder: Path, script: str) -> dict[str, str]:
    """An environment in which this is nvidia-smi."""
    tool = folder / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(script)
    tool.chmod(0o755)
    return os.environ | {"PATH": f"{tool.parent}:{os.environ['PATH']}", "LD_LIBRARY_PATH": ""}


def told(ended: Ended) -> list[dict[str, object]]:
    return [fact for fact in ended.facts if fact["fact"] == "GpusRead"]


def test_somebody_else_holds_the_memory(ranks: Ranks) -> None:
    script = SMI.format(apps=f'echo "GPU-1f, {os.getpid()}, 62464"; echo "GPU-1f, 1, 5"')

    ended = ranks.run(2, OOM, env=with_smi(ranks.folder, script))

    comm = Path("/proc/self/comm").read_text().strip()
    assert (
        f"end who else holds GPU memory, by the driver's numbers: pid {os.getpid()} ({comm}) 61.0 GiB of GPU 0"
        in hints(ended)
    )
    assert ended.cause["kind"] == "cuda-oom"


def test_two_ranks_on_one_gpu(ranks: Ranks) -> None:
    program = f"mine = f'{ranks.folder}/pid-{{RANK}}'\nopen(mine + '.new', 'w').write(str(os.getpid()))\nos.rename(mine + '.new', mine)\nwhile not all(os.path.exists(f'{ranks.folder}/pid-{{each}}') for each in (0, 1)): time.sleep(0.01)\n"
    apps = f'for n in 0 1; do echo "GPU-1f, $(cat {ranks.folder}/pid-$n), 40000"; done'

    ended = ranks.run(2, program + OOM, env=with_smi(ranks.folder, SMI.format(apps=apps)))

    assert "ranks 0, 1 hold memory of GPU 0" in hints(ended)


def test_the_driver_is_not_asked_about_what_speaks_of_no_gpu(ranks: Ranks) -> None:
    asked = ranks.folder / "asked"

    ended = ranks.run(1, "raise ValueError('x')", env=with_smi(ranks.folder, f"#!/bin/sh\ntouch {asked}\n"))

    assert told(ended) == []
    assert not asked.exists()


def test_a_driver_that_does_not_answer(ranks: Ranks) -> None:
    """It is ended in time, and is nothing that the job has left behind."""
    ended = ranks.run(2, OOM, env=with_smi(ranks.folder, "#!/bin/sh\nexec sleep 100\n"))

    (fact,) = told(ended)
    # Its own program gives it up after 1.8 s, and says so unless it took as long to start that we give that up after 4.
    assert (
        "nvidia-smi: TimeoutExpired" in str(fact["why_not"])
        or fact["why_not"] == "the driver did not answer within 4 s"
    )
    assert (ended.verdict["teardown"]["killed"], ended.verdict["teardown"]["survivors"]) == ([], [])
    assert ended.status == 1


def test_who_asks_the_driver_goes_with_us(ranks: Ranks) -> None:
    """The supervisor is killed while it asks: neither its program nor the driver's is left."""
    pipe = ranks.folder / "pid"
    os.mkfifo(pipe)
    env = with_smi(ranks.folder, f"#!/bin/sh\necho $PPID $$ > {pipe}\nexec sleep 100\n")
    words = ["--run-dir", str(ranks.next_dir()), "-n", "1", ranks.program(OOM.replace("RANK == 1", "True"))]
    run = subprocess.Popen(ranks.command(*words), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        asking, driver = map(int, pipe.read_text().split())
        fds = [os.pidfd_open(pid) for pid in (asking, driver)]
        supervisor = int(Path(f"/proc/{asking}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(supervisor, signal.SIGKILL)

        for fd in fds:
            assert select.select([fd], [], [], 20)[0]
            os.close(fd)
    finally:
        run.wait(30)


def with_library(ranks: Ranks, *flags: str) -> dict[str, str]:
    """An environment in which the real nvidia-ml-py finds a driver's library: ours."""
    if find_spec("pynvml") is None:
        pytest.skip("nvidia-ml-py is not installed")
    if shutil.which("gcc") is None:
        pytest.skip("gcc is needed")
    made = ranks.folder / "lib" / "libnvidia-ml.so.1"
    made.parent.mkdir()
    subprocess.run(["gcc", "-shared", "-fPIC", *flags, "-o", str(made), str(LIBRARY)], check=True)
    return os.environ | {"LD_LIBRARY_PATH": str(made.parent)}


def test_a_gpu_that_is_lost(ranks: Ranks) -> None:
    ended = ranks.run(2, LOST, "--exit-codes", "class", env=with_library(ranks))

    assert (ended.cause["kind"], ended.cause["confidence"], ended.status) == ("gpu-error", "likely", 83)
    assert ended.cause["evidence"][0] == {"source": "nvidia-ml-py", "statement": "GPU 1 (00000000:5E:00.0) is lost"}
    assert "GPU 0 (00000000:3B:00.0) has had 2 uncorrected ECC errors" in hints(ended)
    assert (ended.verdict["owner"], ended.verdict["retry"]["advice"]) == ("machine", "elsewhere")


@pytest.mark.slow
def test_a_library_that_hangs(ranks: Ranks) -> None:
    ended = ranks.run(2, LOST, env=with_library(ranks, "-DHANGS"))

    (fact,) = told(ended)
    assert fact["why_not"] == "the driver did not answer within 4 s"
    assert (ended.cause["kind"], ended.verdict["teardown"]["survivors"]) == ("exception", [])


def test_the_library_is_loaded_into_no_process_that_forks(ranks: Ranks) -> None:
    """The supervisor's own maps, read by the rank that fails last of all: no libnvidia-ml there."""
    program = """
there = os.path.join(os.path.dirname(__file__), "there")
if RANK == 1:
    while not os.path.exists(there):
        time.sleep(0.01)
    raise RuntimeError("CUDA error: unspecified failure of the device")
def look(*_):
    time.sleep(0.5)  # the driver is being asked
    maps = open(f"/proc/{os.getppid()}/maps").read()
    print("LOADED" if "libnvidia-ml" in maps else "CLEAN", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, look)
open(there, "w").close()
signal.pause()
"""
    ended = ranks.run(2, program, env=with_library(ranks))

    assert "CLEAN" in ended.stdout
    assert len(told(ended)) == 1


def test_the_program_says_why_it_knows_nothing() -> None:
    program = Path(sys.modules["rankguard"].__path__[0]) / "linux" / "gpu_program.py"
    env = {"PATH": "/nowhere", "LD_LIBRARY_PATH": ""}

    said = subprocess.run([sys.executable, "-P", str(program)], env=env, capture_output=True, text=True, check=True)

    assert '"gpus": []' in said.stdout
    assert "there is no nvidia-smi" in said.stdout
