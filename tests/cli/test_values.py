"""What options accept, and what is said of the rest."""

import re
import signal

import pytest

from rankguard.cli import values
from rankguard.cli.values import Endpoint, Streams

GOOD = [
    (values.streams, "3", Streams(3, {})),
    (values.streams, "0:3,1:0", Streams(0, {0: 3, 1: 0})),
    (values.streams, "10-12:1, 128:2", Streams(0, {10: 1, 11: 1, 12: 1, 128: 2})),
    (values.ranks, "0,2,4-7", (0, 2, 4, 5, 6, 7)),
    (values.shown_ranks, "", ()),
    (values.shown_ranks, " 3", (3,)),
    (values.seconds, "0.5", 0.5),
    (values.seconds, "1e3", 1000.0),
    (values.count, "0", 0),
    (values.port, "65535", 65535),
    (values.size, "64M", 64 << 20),
    (values.size, "1.5 GiB", 3 << 29),
    (values.size, "0", 0),
    (values.label, "team=a=b", ("team", "a=b")),
    (values.texts, "apple,or,,ange,,,", ("apple", "or,ange,")),
    (values.texts, "", ()),
    (values.signals, "SIGTERM, usr1,SIGQUIT", frozenset({signal.SIGTERM, signal.SIGUSR1, signal.SIGQUIT})),
    (values.nproc, "auto", "auto"),
    (values.nproc, "16", "16"),
    (values.nodes, "1", (1, 1)),
    (values.nodes, "2:4", (2, 4)),
    (values.endpoint, "", None),
    (values.endpoint, "node0", Endpoint("node0", None)),
    (values.endpoint, "node0:29400", Endpoint("node0", 29400)),
    (values.endpoint, "localhost:0", Endpoint("localhost", None)),
    (values.endpoint, "[::1]:29400", Endpoint("::1", 29400)),
    (values.endpoint, "[::1]", Endpoint("::1", None)),
    (values.endpoint, "fe80::1", Endpoint("fe80::1", None)),
    (values.host, "[::1]", "::1"),
]
BAD = [
    (values.streams, "4", "0 to 3, or RANK:0-3"),
    (values.streams, "0:3,", "0 to 3, or RANK:0-3"),
    (values.streams, "3-1:3", "0 to 3, or RANK:0-3"),
    (values.ranks, "", "ranks, such as"),
    (values.ranks, "-1", "ranks, such as"),
    (values.ranks, "0-99999999", "fewer ranks"),
    (values.ranks, "9" * 5000, "ranks, such as"),
    (values.seconds, "soon", "a number of seconds"),
    (values.seconds, "-1", "a number of seconds"),
    (values.seconds, "nan", "a number of seconds"),
    (values.seconds, "inf", "a number of seconds"),
    (values.count, "-1", "a whole number"),
    (values.count, "1.5", "a whole number"),
    (values.port, "0", "a port"),
    (values.port, "65536", "a port"),
    (values.size, "64X", "a size"),
    (values.size, "9" * 400, "a size"),
    (values.label, "=x", "KEY=VALUE"),
    (values.regex, "(", "a regular expression"),
    (values.regex, "a{99999999999}", "a regular expression"),
    (values.signals, "SIGFOO", "names of signals"),
    (values.signals, "SIGKILL", "signals that can be handled, unlike SIGKILL"),
    (values.nproc, "0", "1 or more ranks, `auto`"),
    (values.nproc, "9" * 5000, "1 or more ranks, `auto`"),
    (values.nproc, "gpus", "1 or more ranks"),
    (values.nproc, "-4", "1 or more ranks"),
    (values.nodes, "0", "a number of machines"),
    (values.nodes, "4:2", "a number of machines"),
    (values.nodes, "1:", "a number of machines"),
    (values.endpoint, "node0:http", "HOST or HOST:PORT"),
    (values.endpoint, "node0:65536", "HOST or HOST:PORT"),
    (values.endpoint, ":29400", "the name or address of a machine"),
    (values.host, "a b", "the name or address of a machine"),
    (values.folder, "", "a folder"),
]


@pytest.mark.parametrize(("parse", "text", "expected"), GOOD)
def test_accepted(parse, text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(("parse", "text", "expected"), BAD)
def test_refused_with_what_was_expected(parse, text, expected):
    with pytest.raises(ValueError, match=re.escape(expected)) as refused:
        parse(text)

    assert not str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 120


def test_streams_of_one_rank():
    streams = values.streams("0:3,10-15:1")

    assert [streams.of(rank) for rank in (0, 1, 10, 15, 16)] == [3, 0, 1, 1, 0]
    assert values.streams("2").of(9) == 2
    assert streams.beyond(12) == [12, 13, 14, 15]
