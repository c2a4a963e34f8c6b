"""What gloo, TCPStore and torch say when a rank dies, as they say it here and now: each has to be known for a victim's."""

import json
import subprocess
import sys

import pytest
from tests.torch._runs import PATIENCE, PROGRAMS, ROOT

from rankguard.diagnosis.peers import peer_death
from rankguard.diagnosis.tracebacks import clean, last_traceback

pytestmark = pytest.mark.torch


def test_every_victim_is_known_by_its_words():
    done = subprocess.run(
        [sys.executable, f"{PROGRAMS}/victims.py"], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=PATIENCE
    )
    victims = [json.loads(line) for line in done.stdout.splitlines()]

    assert (done.returncode, len(victims)) == (0, 2 * (2 * 13 + 3 + 2))
    assert [v for v in victims if v["code"] != 1] == []
    assert [v for v in victims if not peer_death(v["log"])] == []  # by its log
    raised = [(v, last_traceback(clean(v["log"])).exception) for v in victims]
    assert [v for v, exception in raised if not peer_death(exception.message, exception)] == []  # by its own report
