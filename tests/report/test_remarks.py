"""What ranks print about collectives is kept though much else comes after it, and nothing else is."""

from tests.diagnosis import collective_texts as texts

from rankguard.report.remarks import KEPT, LONGEST, Remarks


def remarks(*lines):
    kept = Remarks(2)
    kept.take(1, "\n".join(lines).encode() + b"\n")
    return kept.of(1)


def test_the_watchdogs_words_outlive_the_stacks_behind_them():
    first = (texts.watchdog(1, 7), texts.detected(1, 7, 9, 6))

    assert remarks("step 1", *first, *(f'  File "/app/train.py", line {n} in f' for n in range(500))) == tuple(
        line[:LONGEST] for line in first
    )


def test_every_recorded_text_is_kept():
    told = [
        texts.watchdog(0, 1), texts.failure(0, 1, 1, 0), texts.dump_signal(0, 1, 2, 2), *texts.HEARTBEAT, *texts.OLD,
        texts.GLOO, texts.CLIENTS, texts.STORE.format(0), texts.BARRIER_ALL, texts.JAX[0], *texts.NCCL_ID,
        texts.DESYNC[4], texts.NEVER_JOINED[1],
    ]  # fmt: skip
    for line in told:
        assert remarks("before", line, "after") == (line[:LONGEST],)


def test_what_others_print_is_not():
    assert remarks("request timed out, retrying", "timeout=30", "Connection reset by peer", "step 3 took 4 s") == ()


def test_there_are_never_too_many():
    kept = Remarks(1)
    for n in range(1000):
        kept.take(0, texts.watchdog(0, n).encode() + b"\n")

    assert (len(kept.of(0)), "SeqNum=999" in kept.of(0)[-1]) == (KEPT, True)


def test_bytes_that_are_no_text():
    kept = Remarks(1)
    kept.take(0, b"\xff\xfe NCCL work collective \x00\r\n")

    assert kept.of(0) == ("\ufffd\ufffd NCCL work collective \x00",)
