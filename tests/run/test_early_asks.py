"""What the front asks in the moment of the launch is heard: it waits in the socket while the supervisor starts."""

import signal
from pathlib import Path

from rankguard.client import Client
from rankguard.model import Verdict
from rankguard.spec import job_spec


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
