"""The supervisor's side of the page, in this process: a fault in any part of it costs the page, never the job."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from selectors import EpollSelector

import pytest
from tests.page.served import PATIENCE, Pages

from rankguard.report.files import RunFiles
from rankguard.supervisor.page import KEPT, Page


class Kept(Pages):
    """A page as a supervisor keeps it: `turn` is one turn of its loop."""

    def __init__(self, folder: Path) -> None:
        self.files, self.selector, self.warned = RunFiles(str(folder / "run")), EpollSelector(), list[str]()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port = listening.getsockname()[1]
            self.page = Page(os.dup(listening.fileno()), "127.0.0.1:1", self.files, self.selector)
        self.page.warn = self.page.gone = self.warned.append

    def turn(self, wait: float = 0.0) -> None:
        self.page.wake(time.monotonic())
        for key, _events in self.selector.select(wait):
            key.data[1](time.monotonic())


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.page.close()
    made.selector.close()


def _fault(*_args: object, **_more: object) -> None:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize("part", ["_keep", "_flush", "_is_stuck", "_send_aside", "_plan", "_start", "_close"])
def test_a_fault_in_any_part_is_told_and_ends_the_page_alone(
    kept: Kept, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Page, part, _fault)
    kept.files.append('{"note": "one"}\n')
    kept.page.aside(heals=False)
    kept.turn()
    if part in ("_plan", "_start", "_close"):
        assert kept.page._helper is not None
        os.kill(kept.page._helper.pid, 9)
        _until(kept, lambda: bool(kept.warned) and "gone" in kept.warned[-1])
    monkeypatch.undo()
    kept.files.append('{"note": "two"}\n')
    kept.turn()

    gone = "the page server has ended; http://127.0.0.1:1/ is gone, because of a fault of rankguard: RuntimeError: on purpose"
    assert kept.warned[-1] == gone
    assert [line for line in Path(f"{kept.files.folder}/events.jsonl").read_text().splitlines() if "note" in line] == [
        '{"note": "one"}',
        '{"note": "two"}',
    ]
    with pytest.raises(ConnectionRefusedError):
        kept.connect()


def test_one_that_is_too_far_behind_is_replaced_and_the_next_knows_all(kept: Kept) -> None:
    assert kept.page._helper is not None
    slow = kept.page._helper.pid
    os.kill(slow, 19)
    line = '{"note": "' + "x" * 1000 + '"}\n'
    for _ in range(KEPT // len(line) // 100 + 30):  # and what the socket holds
        kept.files.append(line * 100)
        kept.turn()

    assert [said.split("; ")[0] for said in kept.warned] == ["the page server has ended: it is 8 MiB behind"]
    assert kept.page._helper is not None
    assert kept.page._helper.pid != slow
    lines = Path(f"{kept.files.folder}/events.jsonl").read_text().count("\n")
    told = kept.events(f"Last-Event-ID: {lines - 1}")
    _until(kept, lambda: not kept.page._waiting)
    assert next(told)[0] == lines
    told.close()


def _until(kept: Kept, true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until
        kept.turn(0.01)


def test_without_a_descriptor_left_it_is_tried_again(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptor(*_args: object, **_more: object) -> None:
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr("rankguard.supervisor.page.Helper", no_descriptor)
    assert kept.page._helper is not None
    os.kill(kept.page._helper.pid, 9)
    _until(kept, lambda: len(kept.warned) == 2)

    assert kept.warned == [
        "the page server has ended; it is started again now",
        "the page server has ended: unable to start it: Too many open files; it is started again in 1 s",
    ]
    monkeypatch.undo()
    kept.page.wake(time.monotonic() + 1)
    assert kept.get("/livez").status == 200
