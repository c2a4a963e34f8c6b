"""The rules behind `***`: which values are looked for elsewhere, in which spellings, when cut, and how fast."""

import html
import json
import random
import shlex
import string
import time
import urllib.parse
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankguard import facts
from rankguard.jobspec import JobSpec
from rankguard.launchers.redaction import redacted, redacted_tail
from rankguard.model import Ending, ExceptionInfo, Report
from rankguard.record import Record, to_data
from rankguard.report.redact import HIDDEN, Redactor, for_telling, job_redactor, without_secrets

SECRET = "c4nary-9f8e7d6c5b4a"


def knowing(**env: str) -> Redactor:
    redactor = Redactor()
    redactor.env(env)
    return redactor


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("DEBUG_TOKEN", "1", "1 of 1 ranks"),
        ("API_KEY", "abc12", "abc12 is too short"),
        ("AUTH", "required", "a plain word is required"),
        ("TOKEN", "production", "the production cluster"),
        ("SESSION_KEY", "123456789", "at 123456789 ns"),
        ("KEY_FILE", "/etc/ssl/private.pem", "reads /etc/ssl/private.pem"),
        ("API_KEY", "train.py", "File train.py, line 3"),
        ("EMPTY_TOKEN", "", "nothing"),
        ("EMPTY_TOKEN", "null", "null and null"),
    ],
)
def test_a_value_that_could_be_anything_stays_elsewhere(name, value, text):
    redactor = knowing(**{name: value})

    assert text == redactor.text(text)
    if value not in ("", "null"):
        assert redactor.text(f"{name}={value}") == f"{name}={HIDDEN}"  # beside its name it is hidden all the same


def test_a_key_of_torchs_store_is_no_secret_and_nothing_else_under_that_name():
    """It names the rank that a collective waits for."""
    told = "wait timeout after 3000ms, keys: /default_pg/0//cpu//0/3"

    assert Redactor().text(told) == told
    assert Redactor().text("keys: /default_pg/0//ready/hunter2") == f"keys: {HIDDEN}"
    assert Redactor().text("api_keys: /default_pg/0//cpu//0/3") == f"api_keys: {HIDDEN}"


@pytest.mark.parametrize("value", ["abc123", "Passwd", "1234567890", "lowercaseword", "ab cd ef!"])
def test_a_value_that_is_odd_enough_is_hidden_everywhere(value):
    assert knowing(API_KEY=value).text(f"<{value}>") == f"<{HIDDEN}>"


ODD = st.text(string.ascii_letters + string.digits + "\"'\\ /&<>+%$!ü😀\t", min_size=12, max_size=30).filter(
    lambda value: sum(c.isalnum() and c.isascii() for c in value) >= 8 and value == value.strip()
)
SPELLINGS = {
    "plain": str,
    "json": json.dumps,
    "json, not escaped": lambda value: json.dumps(value, ensure_ascii=False),
    "json in json in json": lambda value: json.dumps({"a": json.dumps([json.dumps(value)])}),
    "repr": repr,
    "repr of json": lambda value: repr(json.dumps({"k": value})),
    "ascii": ascii,
    "bytes": lambda value: repr(value.encode()),
    "shell": shlex.quote,
    "shell, in an exception": lambda value: repr(KeyError(f"sh -c {shlex.quote(value)}")),
    "url": urllib.parse.quote,
    "form": urllib.parse.quote_plus,
    "html": html.escape,
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@given(value=ODD)
def test_spellings(spelling, value):
    text = f"before {spelling(value)} after"

    hidden = knowing(API_KEY=value).text(text)

    assert HIDDEN in hidden
    assert len(hidden) < len("before  after") + 30  # nothing but quotes and brackets is left
    assert hidden.startswith("before ")
    assert hidden.endswith(" after")


@pytest.mark.parametrize("kept", range(8, len(SECRET)))
def test_what_is_left_of_a_value_that_was_cut(kept):
    redactor = knowing(API_KEY=SECRET)

    assert redactor.text(f"the value is {SECRET[:kept]}") == f"the value is {HIDDEN}"
    assert redactor.text(f"{SECRET[-kept:]} was the value") == f"{HIDDEN} was the value"


def test_the_middle_of_a_text_is_not_taken_for_a_cut():
    redactor = knowing(API_KEY=SECRET)
    text = f"{SECRET[:10]} and more"

    assert text == redactor.text(text)


def test_a_private_key_over_several_lines():
    body = ["".join(random.choices(string.ascii_letters + "+/", k=64)) for _ in range(3)]
    lines = ["before", "-----BEGIN RSA PRIVATE KEY-----", *body, "-----END RSA PRIVATE KEY-----", "after"]

    tail = redacted_tail(lines, Redactor().text)

    assert tail == ("before", HIDDEN, "after")


def test_a_line_is_cut_after_its_secrets_are_hidden():
    long = "x" * 1990 + SECRET + "y" * 3000

    (line,) = redacted_tail([long], knowing(API_KEY=SECRET).text)

    assert line == "x" * 1990 + HIDDEN + "y" * 7


def kinds(of: type) -> list[type]:
    return [each for kind in of.__subclasses__() for each in [kind, *kinds(kind)]]


ENDING = Ending(kind="exit", code=1)
EXCEPTION = ExceptionInfo("E", SECRET, SECRET, SECRET, (SECRET,), (SECRET,))
KNOWN: dict[str, Any] = {
    "ending": ENDING, "report": Report("failed", SECRET, EXCEPTION), "log_tail": (SECRET,), "memory": facts.MemoryState(),
    "survivors": (facts.Survivor(1, SECRET, "D"),), "left": (facts.Left("shm", f"/dev/shm/{SECRET}", 1),),
    "sender": facts.Sender(1, 1, SECRET), "record": facts.OomRecord(1, SECRET, SECRET),
}  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in kinds(facts.Fact) if kind._fields], ids=lambda kind: kind.__name__)
def test_every_text_of_every_fact_is_hidden(kind):
    """Also of facts that are added later: those with a text get it filled in here by their annotation."""
    hints = {field: hint for base in kind.__mro__ for field, hint in getattr(base, "__annotations__", {}).items()}
    values = {
        field: KNOWN[field]
        if field in KNOWN and "int" not in str(hints[field])
        else SECRET
        if "str" in str(hints[field])
        else 0
        for field in kind._fields
        if field in KNOWN or field not in kind._defaults or "str" in str(hints[field])
    }
    fact = kind(**{field: value for field, value in values.items() if not isinstance(value, tuple) or field in KNOWN})

    shown = json.dumps(to_data(redacted(fact, knowing(API_KEY=SECRET).text)))

    assert SECRET not in shown
    assert SECRET in json.dumps(to_data(fact)) or HIDDEN not in shown


def spec(**more: Any) -> JobSpec:
    return JobSpec(
        run_id="r",
        command=("prog", "--x", SECRET),
        argv=("prog", "--api-key", SECRET),
        nprocs=2,
        env={},
        cwd="/",
        **more,
    )


def test_of_a_job():
    job = spec(labels={"team": "blue", "deploy_token": "t0ken-of-the-label"}, rank_env=({"A_TOKEN": "rank-zero-1"}, {}))

    shown = for_telling(without_secrets(job))
    told = json.dumps(to_data(shown.replace(redact=())))

    assert shown.command == ("prog", "--x", HIDDEN)  # learnt from where it has a name
    assert shown.labels == {"team": "blue", "deploy_token": HIDDEN}
    assert not any(value in told for value in (SECRET, "rank-zero-1", "t0ken"))
    assert job_redactor(without_secrets(job)).text("t0ken-of-the-label, rank-zero-1") == f"{HIDDEN}, {HIDDEN}"


def test_records_are_left_as_they_are_where_nothing_is_secret():
    fact = facts.StatusTold(1.0, 0, "loading", 1, 2, "shards")

    assert fact == redacted(fact, knowing(API_KEY=SECRET).text)
    assert isinstance(fact, Record)


def test_64_kib_with_50_secrets_take_less_than_5_ms():
    random.seed(1)
    redactor = knowing(
        **{f"V{n}_TOKEN": "".join(random.choices(string.ascii_letters + "+/=-", k=40)) for n in range(50)}
    )
    line = (
        "2026-11-22 12:00:00 INFO step %d loss=%.4f max_tokens=4096 loading layers.3.k_proj.weight from /models/llama\n"
    )
    text = "".join(line % (n, random.random()) for n in range(640))[: 64 << 10]
    assert len(text) == 64 << 10
    took = []
    for _ in range(10):
        began = time.thread_time()
        redactor.text(text)
        took.append(time.thread_time() - began)

    assert min(took) < 0.005


def test_to_learn_an_environment_takes_a_few_ms():
    """Twice at each start: in the front and in the supervisor."""
    random.seed(2)
    letters = string.ascii_letters + "+/=@! "
    env = {f"V{n}_TOKEN": "".join(random.choices(letters, k=40)) for n in range(50)} | {
        f"P{n}": "/usr/bin:" * 20 for n in range(100)
    }
    took = []
    for _ in range(5):
        began = time.thread_time()
        knowing(**env)
        took.append(time.thread_time() - began)

    assert min(took) < 0.02
