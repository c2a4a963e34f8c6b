"""Secrets do not leave; what merely looks like one stays readable."""

import json
import shlex
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankguard.errors import UsageError
from rankguard.report.redact import Redactor, is_secret

CANARY = "c4nary-9f8e7d6c"
NAMES = [
    "api-key",
    "HF_TOKEN",
    "clientSecret",
    "password",
    "db.password",
    "aws_credential",
    "X-Auth",
    "APIKEY",
    "passwd",
]
NAMES += ["tokenizer_api_key", "max_tokens_password", "author_token", "MYSQL_PWD", "--key", "Authorization", "auth"]

SPELLINGS = [
    "{n}={s}",
    "{n}: {s}",
    "{n} = {s!r}",
    '{{"a": 1, "{n}": "{s}", "b": 2}}',
    '{{"{n}":"{s}","b":2}}',
    '{{\\"{n}\\": \\"{s}\\"}}',
    "{{'{n}': '{s}'}}",
    "Namespace(a=1, {n}={s!r}, b=2)",
    "https://host/path?a=1&{n}={s}&b=2",
    'os.environ["{n}"] = "{s}"',
    "export {n}='{s}'; python train.py",
    '{n} := "{s}"',
    "{n} => {s}",
    '{n} = """{s}"""',
    "tokenizer={{{n}={s}}}",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", NAMES)
def test_named_values_in_text(name, spelling):
    text = spelling.format(n=name, s=CANARY)

    actual = Redactor().text(text)

    assert CANARY not in actual
    assert "***" in actual
    assert name in actual


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--api-key S --port 80", ["--api-key", "***", "--port", "80"]),
        ("--api-key=S", ["--api-key=***"]),
        ("env API_KEY=S prog", ["env", "API_KEY=***", "prog"]),
        ("-Dpassword=S", ["-Dpassword=***"]),
        ("+trainer.auth.token=S", ["+trainer.auth.token=***"]),
        ("--env=API_KEY=S", ["--env=API_KEY=***"]),
        ("--api-key --other S", ["--api-key", "--other", "S"]),
        ("--api-key -S3cret", ["--api-key", "***"]),
        ("--api-key a=b", ["--api-key", "***"]),
        ("--use-auth -- prog", ["--use-auth", "--", "prog"]),
        ("--dsn postgres://u:S@db:5432/x", ["--dsn", "postgres://***@db:5432/x"]),
        ("--url http://host:8000/a?b=c", ["--url", "http://host:8000/a?b=c"]),
        ("-H 'Authorization: Bearer S'", ["-H", "Authorization: ***"]),
        ("sh -c 'prog --hf-token S -n 8'", ["sh", "-c", "prog --hf-token *** -n 8"]),
        ('--config \'{"api_key": "S", "n": 1}\'', ["--config", '{"api_key": "***", "n": 1}']),
        ("--num-key-value-heads 8", ["--num-key-value-heads", "8"]),
        (
            "--max-tokens 4096 --max-num-batched-tokens=131072",
            ["--max-tokens", "4096", "--max-num-batched-tokens=131072"],
        ),
        ("--tokenizer org/name --skip-tokenizer-init", ["--tokenizer", "org/name", "--skip-tokenizer-init"]),
        ("--tokenizer-path=/models/x", ["--tokenizer-path=/models/x"]),
        ("--keyboard us --author me", ["--keyboard", "us", "--author", "me"]),
        ("--pad-token-id 151643 --eos-token '</s>'", ["--pad-token-id", "151643", "--eos-token", "</s>"]),
        ("--max-tokens S3cret", ["--max-tokens", "***"]),
        ("--tokens-file S", ["--tokens-file", "***"]),
        ("", []),
    ],
)
def test_argv(line, expected):
    assert expected == Redactor().argv(shlex.split(line))


def test_env():
    variables = {
        "HF_TOKEN": CANARY,
        "WANDB_API_KEY": CANARY,
        "DATABASE_URL": f"postgres://u:{CANARY}@db/x",
        "EXTRA": json.dumps({"password": CANARY}),
        "PWD": "/root",
        "PATH": "/usr/bin",
        "TOKENIZERS_PARALLELISM": "false",
        "EMPTY_TOKEN": "",
    }

    expected = {
        "HF_TOKEN": "***",
        "WANDB_API_KEY": "***",
        "DATABASE_URL": "postgres://***@db/x",
        "EXTRA": '{"password": "***"}',
        "PWD": "/root",
        "PATH": "/usr/bin",
        "TOKENIZERS_PARALLELISM": "false",
        "EMPTY_TOKEN": "",
    }

    assert expected == Redactor().env(variables)


@pytest.mark.parametrize(
    "text",
    [
        f"postgres://user:{CANARY}@host/db",
        f"redis://:{CANARY}@host",
        f"amqp://user:p@ss/{CANARY}@host/x",
        f"https://{CANARY}@github.com/x.git",
        f"http://a:b@h1,http://c:{CANARY}@h2",
        f"Authorization: Bearer {CANARY}",
        f'-H "Authorization: Basic {CANARY}"',
        f"'Proxy-Authorization': 'Digest username={CANARY}, response={CANARY}'",
        f"sent bearer {CANARY}",
        "key sk-abcdefghijklmnop1234 is wrong",
        "hf_abcdefghijklmnopqrst",
        "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_without_a_name(text):
    actual = Redactor().text(text)

    assert "***" in actual
    assert CANARY not in actual
    assert "abc" not in actual


@pytest.mark.parametrize(
    "text",
    [
        "KeyError: 'model.layers.0.weight'",
        "huggingface_hub.errors.TokenError: no such repository",
        "KeyboardInterrupt: stopped",
        "    key = self.k_proj(hidden_states)",
        "    tokens = torch.cat([a, b], dim=-1)",
        "#new-token: 7, #cached-token: 0, token usage: 0.05, max_total_num_tokens=1310720",
        "tokenizer_mode=auto, tokenizer='/models/x', api_key=None",
        "size mismatch for layers.0.key.weight: copying a param with shape",
        '"num_key_value_heads": 8, "eos_token_id": 128009, "bos_token": "<s>",',
        "for key, value in items:",
        "raise KeyError(key)",
        "the token is here, and the key and the secret too",
        'Unexpected key(s) in state_dict: "a.b".',
        "author: me",
        "http://127.0.0.1:8000/health",
        "basic authentication is off",
        "",
    ],
)
def test_what_is_no_secret_stays(text):
    assert text == Redactor().text(text)


def test_the_users_own_patterns():
    redactor = Redactor([r"proj-\d+", "x*"])

    assert redactor.text("about proj-17 and proj-18") == "about *** and ***"
    assert redactor.argv(["proj-1", "--name", "proj-2"]) == ["***", "--name", "***"]
    assert redactor.env({"A": "proj-3"}) == {"A": "***"}


def test_a_bad_pattern_is_a_usage_error():
    with pytest.raises(UsageError, match=r"`redact` is not a regular expression: missing \)") as told:
        Redactor(["(hunter2"])
    assert "hunter2" not in str(told.value)


def test_a_secret_of_argv_or_env_is_hidden_wherever_it_turns_up():
    redactor = Redactor()
    redactor.env({"HF_TOKEN": CANARY, "DSN": "db://u:pa55word!@h"})
    redactor.argv(["curl", "-H", "Authorization: Bearer b3arer-1234 ", "--api-key", "k3y-123456"])

    actual = redactor.text(f"said {CANARY}, then pa55word!, b3arer-1234 and k3y-123456")

    assert actual == "said ***, then ***, *** and ***"


def test_what_is_learnt_hides_no_ordinary_words():
    redactor = Redactor()
    redactor.argv(["--use-auth", "train.py", "--key-order", "10000", "--auth", "required"])
    redactor.env({"SSH_AUTH_SOCK": "/tmp/agent.sock"})

    text = 'File "/app/train.py", line 10000: required /tmp/agent.sock'

    assert text == redactor.text(text)


secrets = st.text(string.ascii_letters + string.digits + "+/_-.!%^*~$@#:&;,(){}[]|<>?", min_size=10, max_size=40)


@given(st.sampled_from(NAMES[:6]), st.sampled_from(SPELLINGS), secrets.filter(lambda s: any(c.isalpha() for c in s)))
def test_canary(name, spelling, secret):
    assert f"{secret}" not in Redactor().text(spelling.format(n=name, s=secret))


@given(st.lists(st.one_of(secrets, st.sampled_from(["--api-key", "--x", "a=b", "A_TOKEN=", "-n"]))))
def test_argv_keeps_its_length_and_is_stable(args):
    once = Redactor().argv(args)

    assert len(once) == len(args)
    assert once == Redactor().argv(once)


@given(st.text())
def test_text_is_stable(text):
    once = Redactor().text(text)

    assert once == Redactor().text(once)


@pytest.mark.parametrize(
    "piece", ["key", "key=", "://", "://a:", 'key\\"', "a" * 50 + "key ", "key: '", "--token ", "Bearer ", '"key": "\\']
)
def test_long_hostile_text_takes_no_time(piece):
    text = piece * (200_000 // len(piece))
    before = time.process_time()

    Redactor().text(text)

    assert time.process_time() - before < 5


@pytest.mark.parametrize("name", ["token", "keys", "id_token", "new_token"])
def test_numbers_that_may_be_one_time_passwords(name):
    assert is_secret(name, "839201")
