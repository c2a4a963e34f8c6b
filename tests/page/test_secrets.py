"""No page shows a secret, nor does the server have one: not in its variables, not in its words."""

import os
import signal
from pathlib import Path

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


def test_no_page_shows_a_secret(tmp_path: Path) -> None:
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
        told = "".join(job.get(page).text for page in pages)
        server = job.server()
        told += Path(f"/proc/{server}/environ").read_text() + Path(f"/proc/{server}/cmdline").read_text()
        job.tell(1, "raise")
        job.until(fact="Judged")
        told += "".join(job.get(page).text for page in pages)
        told += _whole_journal(job)
        job.tell(0, "exit 0")
        job.process.send_signal(signal.SIGTERM)
        job.end()

    assert canaries.plain in told
    assert found_in(canaries, told) == []


def _whole_journal(job: Served) -> str:
    told = []
    for _number, _name, data in job.events():
        told.append(repr(data))
        if data.get("fact") == "Judged":
            break
    return "".join(told)
