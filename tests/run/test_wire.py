"""Front and supervisor talk at the edges of a job: what is asked before the one has started, what is said before it ends."""

import os
import signal
import socket
from pathlib import Path

from rankguard.client import Client
from rankguard.model import Verdict
from rankguard.spec import job_spec
from rankguard.wire import Wire


def client(folder: Path) -> Client:
    command = ["/bin/sleep", "1000"]
    spec, _warning = job_spec(command=command, argv=command, nprocs=2, run_dir=folder / "run", console="none")
    return Client(spec)


def test_a_question_behind_the_first_message_is_answered(tmp_path: Path) -> None:
    asking = client(tmp_path)
    asking.send({"do": "progress"})  # long before a Python has started

    said: list[str] = []
    while "progress" not in said:
        news = asking.receive(30)
        assert news, "nothing for 30 s"
        said += [message["is"] for message, _fds in news]
    asking.stop(signal.SIGTERM)
    while not asking.closed:
        asking.receive(30)
    assert asking.wait_gone()
    asking.close()


def test_a_stop_behind_the_first_message_stops_the_job(tmp_path: Path) -> None:
    asking = client(tmp_path)
    asking.stop(signal.SIGINT)

    verdict = None
    while not asking.closed:
        news = asking.receive(30)
        assert news or asking.closed, "nothing for 30 s"
        for message, _fds in news:
            if message["is"] == "finished":
                verdict = Verdict.from_dict(message["verdict"])
    assert asking.wait_gone()
    asking.close()
    assert verdict is not None
    assert (verdict.outcome, verdict.exit_code) == ("interrupted", 130)


def test_last_words_are_received_although_nobody_listens_there_any_more() -> None:
    ours, theirs = (Wire(end) for end in socket.socketpair())
    theirs.send({"is": "finished"})
    theirs.close()
    for _ in range(3):
        ours.send({"do": "glimpse"}, [0])  # EPIPE, as when a supervisor ends while we ask

    assert not ours.pending
    assert [message for message, _fds in ours.receive()] == [{"is": "finished"}]
    assert ours.closed
    ours.close()


def test_descriptors_that_nobody_takes_are_closed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = (Wire(end) for end in socket.socketpair())
    while not ours.pending:
        ours.send({"do": "x" * 10000}, [0])
    ours.send({"do": "more"}, [0, 0])
    theirs.close()
    ours.flush()
    ours.close()

    assert len(os.listdir("/proc/self/fd")) == before
