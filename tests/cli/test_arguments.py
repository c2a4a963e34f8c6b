"""The grammar of `rankguard run`: what torchrun's users and argparse's habits have made people write."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankguard.cli.arguments import HelpAsked, parse
from rankguard.cli.options import OPTIONS
from rankguard.cli.values import Streams
from rankguard.errors import UsageError


def asked(*words, **env):
    return parse([*words, "train.py"], env)


def refused(*words, **env):
    with pytest.raises(UsageError) as error:
        asked(*words, **env)
    return error.value.statement, error.value.hint


@pytest.mark.parametrize(
    "words",
    [
        ("-n", "8"),
        ("-n8",),
        ("-n=8",),
        ("--nproc-per-node", "8"),
        ("--nproc_per_node=8",),
        ("--nproc_per-node", "8"),
        ("--nproc", "8"),
        ("--np=8",),
        ("-n", "2", "--nproc-per-node", "8"),
    ],
)
def test_ways_to_say_eight(words):
    assert asked(*words).nproc_per_node == "8"


def test_short_flags_and_options_in_one_word():
    both = asked("-mr", "3")
    assert (both.module, both.redirects) == (True, Streams(3, {}))

    assert asked("-mr3").redirects == Streams(3, {})
    assert asked("-mqt0:1").tee == Streams(0, {0: 1})


def test_an_abbreviation_as_torchs_own_tests_write_it():
    assert asked("--redirect=3").redirects == Streams(3, {})


def test_our_options_take_no_abbreviation_away_that_torchrun_knows():
    assert asked("--red=3", "--log-", "/tmp").redirects == Streams(3, {})  # beside --redact, --log-max, --log-format
    assert asked("--re", "1").redirects == Streams(1, {})  # beside --report and --ready-timeout
    assert asked("--start", "exec").start == "exec"  # in full it is ours, not --start-method


def test_the_last_one_wins_but_for_those_that_add_up():
    several = asked("--role=a", "--role", "b", "--label", "a=1", "--label=b=2", "-r", "3", "-r", "0")

    assert (several.role, several.label, several.redirects) == ("b", (("a", "1"), ("b", "2")), Streams(0, {}))


def test_what_stands_behind_the_program_is_its_own():
    given = parse(["-n", "2", "train.py", "-n", "4", "--", "--help", "-h"], {})

    assert (given.nproc_per_node, given.program, given.args) == ("2", "train.py", ["-n", "4", "--", "--help", "-h"])


@pytest.mark.parametrize("words", [("--", "-odd.py", "a"), ("-q", "--", "-odd.py", "a")])
def test_two_hyphens_end_the_options(words):
    given = parse(list(words), {})

    assert (given.program, given.args) == ("-odd.py", ["a"])


def test_one_hyphen_is_a_program():
    assert parse(["-"], {}).program == "-"


# ── PET_* ────────────────────────────────────────────────────────────────────────────────────────────────────────


def pet(option):
    return f"PET_{option.field.upper()}"


SAMPLES = {
    "nproc_per_node": "3", "nnodes": "1:1", "rdzv_endpoint": "h:1", "max_restarts": "2", "monitor_interval": "0.5",
    "start_method": "fork", "node_rank": "0", "master_port": "29501", "shutdown_timeout": "7", "redirects": "0:3",
    "tee": "3", "local_ranks_filter": "0,1", "signals_to_handle": "SIGTERM,SIGUSR1", "duplicate_stdout_filters": "a,b",
    "duplicate_stderr_filters": "a",
}  # fmt: skip


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.pet], ids=lambda option: option.name)
def test_a_pet_variable_is_the_default_of_its_option(option):
    text = "1" if option.metavar is None else SAMPLES.get(option.field, "word")

    from_variable = asked(**{pet(option): text})
    from_option = asked(option.name) if option.metavar is None else asked(option.name, text)

    assert getattr(from_variable, option.field) == getattr(from_option, option.field)
    assert from_variable.given == from_option.given == {option.field}
    assert from_variable.written == {option.field: f"{pet(option)}={text}"}


def test_the_command_line_goes_before_the_variable():
    assert asked("-n", "4", PET_NPROC_PER_NODE="2").nproc_per_node == "4"
    assert asked("--standalone", PET_STANDALONE="0").standalone is True


@pytest.mark.parametrize(("text", "value"), [("1", True), ("0", False), ("", False), (" 1 ", True)])
def test_flags_in_variables(text, value):
    assert asked(PET_STANDALONE=text).standalone is value


def test_torch_has_no_variable_for_these_and_none_is_read_for_ours():
    env = {"PET_NUMA_BINDING": "node", "PET_LOGS_SPECS": "x", "PET_GRACE": "1", "PET_READY_TIMEOUT": "2"}

    assert asked(**env) == asked()


# ── What is refused ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "statement", "hint"),
    [
        (("--nprocs", "2"), "there is no option `--nprocs`", "--nproc-per-node"),
        (("--nrpoc-per-node", "2"), "there is no option `--nrpoc-per-node`", "--nproc-per-node"),
        (("--max_restart_s=1",), "there is no option `--max_restart_s`", "--max-restarts"),
        (("--zzz",), "there is no option `--zzz`", "rankguard run --help"),
        (("-z",), "there is no option `-z`", "rankguard run --help"),
        (("--rdzv",), "`--rdzv` is the beginning of 4 options",
         "--rdzv-backend or --rdzv-endpoint or --rdzv-id or --rdzv-conf"),
        (("--standalone=1",), "`--standalone=1`: expected no value", "--standalone"),
        (("-n", "x"), "`-n x`: expected 1 or more ranks, `auto`, `cpu`, `gpu` or `xpu`",
         "rankguard run --help ranks"),
        (("-r", "0:3,10:4"), "`-r 0:3,10:4`: expected 0 to 3, or RANK:0-3 for some ranks, such as 0:3,10-15:1",
         "rankguard run --help output"),
        (("--role", "--standalone"), "`--role`: expected a value, not the option `--standalone`",
         "--role NAME, or --role=--standalone if that is meant"),
        (("--numa-binding", "nodes"),
         "`--numa-binding nodes`: expected node, socket, exclusive or core-complex", "--numa-binding node"),
        (("--print-completion", "bash"), "`--print-completion` is `rankguard completion` here",
         "rankguard completion bash"),
        (("--use_env",), "`--use_env` is of torch.distributed.launch; ranks read LOCAL_RANK in any case",
         "leave it out"),
        (("-np", "4"), "`-np` is mpirun's; there is `-n`", "-n 2"),
    ],
)  # fmt: skip
def test_what_is_wrong_and_what_was_probably_meant(words, statement, hint):
    assert refused(*words) == (statement, hint)


@pytest.mark.parametrize(
    ("env", "statement"),
    [
        ({"PET_STANDALONE": "yes"}, "`PET_STANDALONE=yes`: expected 0 or 1"),
        ({"PET_MASTER_PORT": ""}, "`PET_MASTER_PORT=`: expected a port from 1 to 65535"),
        ({"PET_START_METHOD": "spam"}, "`PET_START_METHOD=spam`: expected spawn, fork or forkserver"),
    ],
)
def test_a_variable_is_quoted_as_such(env, statement):
    assert refused(**env)[0] == statement


@pytest.mark.parametrize("words", [["--role"], ["-n"], ["-mr"]])
def test_a_value_that_is_missing(words):
    with pytest.raises(UsageError, match="expected a value"):
        parse(words, {})


def test_no_program():
    with pytest.raises(UsageError, match="no PROGRAM"):
        parse(["-n", "2"], {})


def test_values_that_begin_with_a_hyphen():
    assert asked("--role=-x").role == "-x"
    assert asked("--role", "-").role == "-"
    assert asked("--redact", "-a b").redact == ("-a b",)
    assert refused("--monitor-interval", "-1")[0] == "`--monitor-interval -1`: expected a number of seconds"


@pytest.mark.parametrize(
    ("words", "topic"),
    [(["-h"], None), (["--help", "files"], "files"), (["--help=files"], "files"), (["-n", "2", "--he"], None)],
)
def test_help(words, topic):
    with pytest.raises(HelpAsked) as help_:
        parse(words, {})

    assert help_.value.topic == topic


NAMES = sorted({name for option in OPTIONS for name in option.names})
WORD = st.one_of(
    st.sampled_from([*NAMES, "--", "-", "-h", "--help=x", "auto", "0:3", "1", "train.py"]),
    st.builds(lambda name, value: f"{name}={value}", st.sampled_from(NAMES), st.text(max_size=6)),
    st.builds(lambda name, end: name[:end], st.sampled_from(NAMES), st.integers(1, 12)),
    st.builds(lambda letters: "-" + letters, st.text("nmrtqvz3=", max_size=5)),
    st.text(max_size=8),
)


@settings(max_examples=400, deadline=None)
@given(words=st.lists(WORD, max_size=6), value=st.text(max_size=6))
def test_whatever_is_written_is_understood_or_refused_in_one_line(words, value):
    read, refused = None, None
    try:
        read = parse(words, {"PET_REDIRECTS": value})
    except UsageError as error:
        refused = error
    except HelpAsked:
        return
    if refused is not None:
        assert refused.statement
        assert refused.hint
    else:
        assert read.program in words
        assert read.args == words[len(words) - len(read.args) :]
