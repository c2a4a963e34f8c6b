"""`rankguard report --html`: a page of any run, whatever became of it, and of what went wrong on the way there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.page.made import data_in, looks, run_of, spec_of, trained

from rankguard.cli.report import report
from rankguard.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that failed."""
    folder = tmp_path / "run"
    run_of(folder, spec_of(4, folder), trained(4, 30, ("<script>alert(1)</script>", "\x1b[2J\u202e last")))
    looks(folder, 4, 30)
    return folder


def test_the_page_of_a_run_that_failed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = folder.parent / "page.html"
    page.write_text("what was there before")
    assert report(["--html", str(page), str(folder)]) == 0

    data = data_in(page.read_text())
    view = data["view"]
    assert (view["state"], view["live"], view["verdict"]["culprit"]["rank"]) == ("failed", False, 1)
    assert view["report"][-1].startswith("rankguard: exit 137 killed")
    assert [log["rank"] for log in data["logs"]] == [1, 0, 2, 3]
    assert data["logs"][0]["streams"]["stdout"]["lines"][0] == "<script>alert(1)</script>"
    assert "<script>alert" not in page.read_text()
    assert len(data["memory"]["at_s"]) == 30
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"note:  wrote `{page}` (")


def test_to_stdout(folder: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert report(["--html", "-", str(folder)]) == 0
    out, err = capfdbinary.readouterr()
    assert (data_in(out.decode())["view"]["schema"], err) == ("rankguard.page/1", b"")


def test_whoever_reads_may_have_enough(folder: Path) -> None:
    """`report --html - | head`"""
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "rankguard", "report", "--html", "-", str(folder)]
    made = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE)
    os.close(writes)
    assert (made.returncode, made.stderr) == (141, b"")


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_stdout_by_a_name_of_its_own(folder: Path, name: str) -> None:
    """`| cat`, `>(cat)`; and what a file holds already stays: `{ echo; rankguard report --html /dev/stdout; } > FILE`"""
    command = [sys.executable, "-m", "rankguard", "report", "--html", name, str(folder)]
    piped = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    file = folder.parent / "all.txt"
    with file.open("wb", buffering=0) as all_:
        all_.write(b"before\n")
        subprocess.run(command, stdout=all_, check=True)
        all_.write(b"after\n")

    assert data_in(piped.decode())["view"]["schema"] == "rankguard.page/1"
    told = file.read_text()
    assert (told[:22], told[-14:]) == ("before\n<!doctype html>", "</html>\nafter\n")


def test_who_may_read_a_file_is_not_changed(folder: Path) -> None:
    page = folder.parent / "page.html"
    page.write_text("")
    page.chmod(0o600)
    assert report(["--html", str(page), str(folder)]) == 0
    assert (page.stat().st_mode & 0o777, page.stat().st_size > 0) == (0o600, True)


def test_a_name_as_long_as_a_name_can_be(folder: Path) -> None:
    page = folder.parent / f"{'n' * 250}.html"
    assert report(["--html", str(page), str(folder)]) == 0
    assert sorted(folder.parent.iterdir()) == [page, folder]


def test_a_link_that_leads_nowhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link, place = folder.parent / "page.html", folder.parent / "place"
    link.symlink_to(place / "page.html")
    assert report(["--html", str(link), str(folder)]) == 1
    assert capsys.readouterr().err.endswith(f"\ntry:   mkdir -p {place}\n")


def test_what_has_no_meaning_is_refused(folder: Path) -> None:
    for words in (["--html", "a", "--json"], ["--html="], ["--html"]):
        with pytest.raises(UsageError):
            report([*words, str(folder)] if words != ["--html"] else words)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("none/page.html", "No such file or directory"),
        (".", "Is a directory"),
        ("/dev/full", "No space left on device"),
    ],
)
def test_a_file_that_cannot_be_written(
    folder: Path, file: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    before = sorted(os.listdir())
    assert report(["--html", file, str(folder)]) == 1

    assert capsys.readouterr().err.startswith(f"error: unable to write `{file}`: {said}\ntry:   ")
    assert sorted(os.listdir()) == before


def test_a_run_that_was_cut_off_is_told_as_far_as_it_went(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    facts = list(trained(2, 12))
    run_of(folder, spec_of(2, folder), facts[:-6], ended=False)
    with (folder / "events.jsonl").open("a") as journal:
        journal.write('{"fact": "Exited", "at": 10')
    log = folder / "rank-0" / "attempt-0" / "stdout.log"
    log.parent.mkdir(parents=True)
    log.write_text("api_key=abcdef123456\nthe last line\n")
    (folder / "rank-1").symlink_to("/etc")
    assert report(["--html", str(tmp_path / "page.html"), str(folder)]) == 0

    data = data_in((tmp_path / "page.html").read_text())
    assert data["view"]["state"] == "cut off"
    assert "was cut off" in data["view"]["state_line"]
    assert {rank["relation"] for rank in data["view"]["ranks"]} == {None}
    assert data["logs"][0]["streams"]["stdout"]["lines"] == ["api_key=***", "the last line"]
    assert data["logs"][0]["by_general_rules"] is True
    assert [w for w in data["view"]["verdict"]["warnings"] if "general rules" in w]


def test_a_folder_of_rubbish_is_no_run_and_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n, journal in enumerate((b"", b"\xff\n", b'{"schema": "rankguard.events/1", "spec": {}}\n', b"[]\n" * 10)):
        folder = tmp_path / str(n)
        folder.mkdir()
        (folder / "events.jsonl").write_bytes(journal)
        for name in ("memory.jsonl", "tails.json", "samples.json"):
            os.mkfifo(folder / name)
        assert report(["--html", str(tmp_path / "page.html"), str(folder)]) == 1
        assert "has left nothing that could be shown" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_a_line_that_no_reader_takes_ends_the_journal_and_not_the_report(folder: Path) -> None:
    with (folder / "events.jsonl").open("a") as journal:
        journal.write("[" * 100_000 + "\n")
    assert report(["--html", str(folder.parent / "page.html"), str(folder)]) == 0
    assert data_in((folder.parent / "page.html").read_text())["view"]["state"] == "failed"


def test_the_page_of_a_run_that_never_began(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_of(folder, spec_of(2, folder), trained(2, 8))
    (folder / "events.jsonl").unlink()
    assert report(["--html", str(tmp_path / "page.html"), str(folder)]) == 0
    view = data_in((tmp_path / "page.html").read_text())["view"]
    assert (view["state"], view["verdict"]["culprit"]["rank"], len(view["ranks"])) == ("failed", 1, 2)


def test_numbers_that_are_none_are_not_passed_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No browser reads them. Ranks cannot say them (`linux/notify.py`): somebody has changed the file."""
    page = folder.parent / "page.html"
    with (folder / "memory.jsonl").open("a") as looks_:
        looks_.write('{"at": NaN, "kib": {}}\n{"at": 1e999, "kib": {}}\n{"at": -1e999, "kib": {}}\n')
    assert report(["--html", str(page), str(folder)]) == 0
    json.dumps(data_in(page.read_text()), allow_nan=False)

    journal = folder / "events.jsonl"
    assert '"done": 29' in journal.read_text()
    journal.write_text(journal.read_text().replace('"done": 29', '"done": 1e999'))
    assert report(["--html", str(page), str(folder)]) == 1
    assert "hold numbers that are none" in capsys.readouterr().err

    journal.write_text(
        journal.read_text().replace('"fact": "Spawned", "at": 1000.1', '"fact": "Spawned", "at": "soon"')
    )
    assert report(["--html", str(page), str(folder)]) == 1
    assert "are not as it left them" in capsys.readouterr().err


@pytest.mark.slow
def test_64_ranks_and_an_hour_are_less_than_a_megabyte(tmp_path: Path) -> None:
    folder, page = tmp_path / "run", tmp_path / "page.html"
    tail = tuple(f"{n} {'x' * 180}" for n in range(20))
    run_of(folder, spec_of(64, folder), trained(64, 3600, tail))
    looks(folder, 64, 3600)
    command = [sys.executable, "-m", "rankguard", "report", "--html", str(page), str(folder)]
    subprocess.run(command, check=True, capture_output=True)

    assert page.stat().st_size < 1_000_000
    data = data_in(page.read_text())
    assert len(data["memory"]["at_s"]) > 300
    assert [
        b - a for a, b in zip(data["memory"]["at_s"][-20:-1], data["memory"]["at_s"][-19:], strict=True)
    ] == pytest.approx([1.0] * 19)
    assert sum(map(sum, data["view"]["signs"]["ranks"].values())) > 64 * 3590
