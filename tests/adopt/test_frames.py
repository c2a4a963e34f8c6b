"""What is read, byte by byte, against what multiprocessing writes."""

import multiprocessing as mp
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankguard.linux.frames import BadFrame, FrameReader


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.integers(1, 50), st.booleans(), st.booleans())
def test_any_messages_in_any_pieces(messages, piece, long, over_socket):
    ours, theirs = (end.detach() for end in socket.socketpair()) if over_socket else os.pipe()
    data = b"".join(_framed(message, long) for message in messages)
    try:
        reader = FrameReader(ours)
        got = []
        for start in range(0, len(data), piece):
            os.write(theirs, data[start : start + piece])
            while reader.take():
                got.append(bytes(reader.message))
                reader = FrameReader(ours)
        assert got == messages
    finally:
        os.close(ours)
        os.close(theirs)


def _framed(message, long):
    if long:  # what messages over 2 GiB begin with
        return b"\xff\xff\xff\xff" + len(message).to_bytes(8, "big") + message
    return len(message).to_bytes(4, "big") + message


@pytest.mark.parametrize("duplex", [False, True])
@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 60000])
def test_what_multiprocessing_writes(duplex, size):
    reader, writer = mp.Pipe(duplex)
    writer.send_bytes(bytes(size))
    writer.send_bytes(b"next")
    frame = FrameReader(reader.fileno())
    assert frame.take()
    assert (bytes(frame.message), frame.size) == (bytes(size), size)
    assert reader.recv_bytes() == b"next"
    reader.close()
    writer.close()


@pytest.mark.parametrize("make", [os.pipe, lambda: [end.detach() for end in socket.socketpair()]])
def test_ends(make):
    for sent, error in [
        (b"", EOFError),
        (b"\0\0", BadFrame),
        (b"\0\0\0\2x", BadFrame),
        (b"\xff\xff\xff\x00", BadFrame),
    ]:
        ours, theirs = make()
        os.write(theirs, sent) if sent else None
        os.close(theirs)
        with pytest.raises(error):
            FrameReader(ours).take()
        os.close(ours)


def test_a_reset_connection_is_an_end():
    ours, theirs = socket.socketpair()
    ours.send(b"unread")
    theirs.close()
    with pytest.raises(EOFError):
        FrameReader(ours.fileno()).take()
    ours.close()
