"""The file and the signal by which a Python tells its own stack: nothing is sent that is not proven to be handled."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rankguard.linux import ownstack
from rankguard.linux.procstack import kernel_stack

BOOTSTRAP = Path(ownstack.__file__).parents[1] / "inside/bootstrap.py"
HANDLES, BLOCKS, DEFAULT = "", "signal.pthread_sigmask(signal.SIG_BLOCK, [50])", "signal.signal(50, signal.SIG_DFL)"
PROGRAM = """
import os, signal, sys
def waits():
    print("there", flush=True); os.read(0, 1)
{more}
waits()
"""


class Rank:
    """A Python that our bootstrap has started, and the path of its file."""

    def __init__(self, folder: Path, more: str) -> None:
        program = folder / "program.py"
        program.write_text(PROGRAM.format(more=more))
        self.path = str(folder / "0.stack")
        env = {**os.environ, "NOTIFY_SOCKET": str(folder / "0"), "RANKGUARD_RUN_ID": "7f3a"}
        self.process = subprocess.Popen(
            [sys.executable, str(BOOTSTRAP), str(program)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"there\n"
        while kernel_stack(self.process.pid).main.waits_in != "read":
            select.select([], [], [], 0.001)  # it is on its way there, and nobody tells when it has arrived

    def refusal(self) -> str | None:
        offer = ownstack.offer_of(self.path, self.process.pid)
        return "no offer" if offer is None else ownstack.refusal(offer, kernel_stack(self.process.pid))

    def end(self) -> int:
        self.process.communicate(b"x")
        return self.process.returncode


@pytest.fixture
def started(tmp_path):
    ranks = []

    def start(more: str = HANDLES) -> Rank:
        ranks.append(Rank(tmp_path, more))
        return ranks[-1]

    yield start
    for rank in ranks:
        rank.process.kill()
        rank.process.communicate()


def test_it_tells_where_it_is_and_goes_on(started) -> None:
    rank = started()
    offer = ownstack.offer_of(rank.path, rank.process.pid)
    assert rank.refusal() is None

    for _ in range(3):
        ownstack.ask(offer)
        end = time.monotonic() + 30
        while not ownstack.has_answered(offer):
            assert time.monotonic() < end
        told = ownstack.answer(offer)
        assert [frame.function for frame in told][:2] == ["waits", "<module>"]
        assert told[0].file.endswith("/program.py")

    assert rank.end() == 0


@pytest.mark.parametrize(
    ("more", "refusal"),
    [
        (DEFAULT, "it has no handler for this any more"),
        ("signal.signal(50, signal.SIG_IGN)", "it has no handler for this any more"),
        (BLOCKS, "its main thread blocks the signal"),
        ("os.closerange(3, 256)", "it has closed the file"),
        ("os.closerange(3, 256); [os.open('/dev/null', 0) for _ in range(150)]", "it has closed the file"),
    ],
    ids=["default", "ignored", "blocked", "closed", "another file"],
)
def test_it_is_not_asked(started, tmp_path, more, refusal) -> None:
    rank = started(more)

    assert rank.refusal() == refusal
    assert rank.end() == 0


def test_a_forked_child_is_not_asked(started, tmp_path) -> None:
    """It has the handler and the file of its parent; the offer is the parent's."""
    ends = "r, w = os.pipe()\npid = os.fork()\nif pid == 0: os.close(w); os.read(r, 1); os._exit(0)\n"
    rank = started(ends + f"open({str(tmp_path / 'child')!r}, 'w').write(str(pid))")
    child = int((tmp_path / "child").read_text())

    assert (rank.refusal(), ownstack.offer_of(rank.path, child)) == (None, None)
    assert rank.end() == 0


@pytest.mark.parametrize("call", ["pause", "__do_sys_pause", "rt_sigsuspend", "sigsuspend", None])
def test_one_that_waits_for_any_signal_is_not_asked(started, call) -> None:
    rank = started()
    offer, known = ownstack.offer_of(rank.path, rank.process.pid), kernel_stack(rank.process.pid)
    waits = known.replace(threads=(known.main.replace(waits_in=call), *known.threads[1:]))

    assert ownstack.refusal(offer, waits) == "its main thread may wait for any signal"


def test_one_that_is_stopped_is_not_asked(started) -> None:
    rank = started()
    os.kill(rank.process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, rank.process.pid, os.WSTOPPED)

    assert rank.refusal() == "it does not run"


def test_from_3_13_on_only_one_that_sleeps(started) -> None:
    rank = started()
    offer, known = ownstack.offer_of(rank.path, rank.process.pid), kernel_stack(rank.process.pid)
    runs = known.replace(threads=(known.main.replace(state="R"), *known.threads[1:]))

    assert ownstack.refusal(offer.replace(minor=12), runs) is None
    assert ownstack.refusal(offer.replace(minor=13), runs) == "its main thread runs, which Python 3.13 need not survive"


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage\n", b"1 2 3\n", b"\xff" * 200, b"%d 100 9 11\n" % os.getpid(), b"%d 100 15 11\n" % os.getpid()],
)
def test_an_offer_that_has_no_meaning_is_none(tmp_path, content) -> None:
    """A rank may write what it likes; a signal that is no real-time one is never sent."""
    (tmp_path / "0.stack").write_bytes(content)

    assert ownstack.offer_of(str(tmp_path / "0.stack"), os.getpid()) is None


def test_only_a_file_is_opened(tmp_path) -> None:
    text = f"{os.getpid()} 100 50 11\n"
    (tmp_path / "real").write_text(text)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()

    told = {
        name: ownstack.offer_of(str(tmp_path / name), os.getpid()) for name in ("real", "link", "fifo", "folder", "no")
    }

    assert {name: offer is not None for name, offer in told.items()} == {
        "real": True, "link": False, "fifo": False, "folder": False, "no": False,
    }  # fmt: skip


def test_an_answer_of_hostile_bytes_is_read_for_what_it_is(tmp_path) -> None:
    first = f"{os.getpid()} 100 50 11\n".encode()
    lines = (
        b'Stack (most recent call first):\n  File "/a"b\\xff.py", line 3 in f\n\xff\xfe\n  File "x", line ??? in g\n'
    )
    (tmp_path / "0.stack").write_bytes(first + lines + b'  File "y", line 1 in ' + b"h" * (2 << 20))

    told = ownstack.answer(ownstack.offer_of(str(tmp_path / "0.stack"), os.getpid()))

    assert [(frame.function, frame.line) for frame in told[:2]] == [("f", 3), ("g", None)]


def test_without_a_run_nothing_is_registered(tmp_path) -> None:
    """The bootstrap under a service manager of somebody else: no file beside its socket."""
    env = {key: value for key, value in os.environ.items() if key != "RANKGUARD_RUN_ID"}
    env["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    program = tmp_path / "program.py"
    program.write_text("import signal; print(signal.getsignal(50) == signal.SIG_DFL)")

    told = subprocess.run([sys.executable, str(BOOTSTRAP), str(program)], env=env, capture_output=True, text=True)

    assert told.stdout == "True\n"
    assert sorted(os.listdir(tmp_path)) == ["program.py"]
