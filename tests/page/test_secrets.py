"""No page shows a secret, nor does the server have one: not in its variables, not in its words."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.marks import slowly
from tests.page.made import data_in
from tests.page.served import PROGRAM, Served
from tests.secrets.canaries import Canaries, found_in

SAY = """
import os, sys
def say(text):
    for line in text.splitlines():
        print(line); print(line, file=sys.stderr)
say(open(sys.argv[1] + "/said").read())
this_is_said = True
"""


@pytest.mark.parametrize("written", [False, *slowly(True)])
def test_no_page_shows_a_secret(tmp_path: Path, written: bool) -> None:
    """`written`: nor does one that is written of its files while it lives, and afterwards."""
    canaries = Canaries()
    (tmp_path / "said").write_text(canaries.every_spelling())
    (tmp_path / "raised").write_text("\n".join(f"unable to use {value}" for value in canaries.all().values()))
    program = SAY + PROGRAM + "\nraise ValueError(open(folder + '/raised').read())"
    env = os.environ | canaries.environment()
    options = [*canaries.options(), "--ready-timeout", "60", "--grace", "60"]
    with Served(tmp_path, 2, *options, program=program, env=env, args=canaries.arguments()) as job:
        job.tell(0, "deaf")
        job.tell(1, f"status loading with api_key={canaries.argument}")
        job.until(fact="StatusTold", rank=0)
        job.until(fact="StatusTold", rank=1)
        pages = ["/", "/startupz", "/readyz", "/livez", "/status", "/metrics", "/" + canaries.argument]
        pages += ["/view.json", "/memory.json", "/log.json?rank=0", "/log.json?rank=1"]
        told = "".join(job.get(page).text for page in pages)
        server = job.server()
        told += Path(f"/proc/{server}/environ").read_text() + Path(f"/proc/{server}/cmdline").read_text()
        job.tell(1, "raise")
        job.until(fact="Judged")
        told += "".join(job.get(page).text for page in pages)
        told += _whole_journal(job)
        told += _page_of(job, os.environ) if written else ""
        job.tell(0, "exit 0")
        job.process.send_signal(signal.SIGTERM)
        job.end()
        told += _page_of(job, os.environ) if written else ""
        told += "".join((job.run_dir / name).read_text() for name in ("memory.jsonl", "tails.json"))

    assert canaries.plain in told
    assert found_in(canaries, told) == []


def _page_of(job: Served, env: Mapping[str, str]) -> str:
    """Made in a shell that knows none of the secrets."""
    command = [sys.executable, "-m", "rankguard", "report", "--html", "-", str(job.run_dir)]
    page = subprocess.run(command, env=dict(env), check=True, capture_output=True, text=True).stdout
    data = data_in(page)
    assert [log for log in data["logs"] if log["rank"] == 1], "a page without output hides it well"
    return page + json.dumps(data, ensure_ascii=False)


def _whole_journal(job: Served) -> str:
    told = []
    for _number, _name, data in job.events():
        told.append(repr(data))
        if data.get("fact") == "Judged":
            break
    return "".join(told)
