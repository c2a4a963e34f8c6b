"""Which ranks do the same, and how that is said. Values in, values out."""

from rankguard.diagnosis.stacks import Group, groups, held, own_frames, sentence
from rankguard.stacks import Frame, Stack, Thread

TRAIN, LIB = "/home/me/train.py", "/venv/lib/python3.11/site-packages/torch/distributed.py"
BOOT = Frame("run_path", "<frozen runpy>", 291)


def stack(*frames: Frame, state: str = "S", active: bool | None = False, **more) -> Stack:
    main = Thread(1, "MainThread", state, frames, more.pop("waits_in", None), active)
    return Stack(1, "python", (main,), **more)


def waiting(line: int = 40, inside: int = 7) -> Stack:
    return stack(
        Frame("wait", LIB, inside),
        Frame("all_reduce", LIB, 100),
        Frame("step", TRAIN, line),
        Frame("<module>", TRAIN, 50),
        BOOT,
    )


def told(stacks: dict[int, Stack]) -> list[str]:
    return [sentence(group, len(stacks)) for group in groups(stacks)]


def test_the_fewest_come_first() -> None:
    loading = stack(Frame("load_shard", TRAIN, 88), BOOT, state="R", active=True)

    said = told({rank: loading if rank == 3 else waiting() for rank in range(8)})

    assert said == [
        "rank 3 is in `load_shard` (train.py:88)",
        "ranks 0-2, 4-7 wait in `all_reduce`, called by `step` (train.py:40)",
    ]


def test_all_the_same_are_one() -> None:
    assert told({0: waiting(), 1: waiting()}) == ["all 2 ranks wait in `all_reduce`, called by `step` (train.py:40)"]


def test_a_line_of_a_library_is_noise_and_one_of_the_program_is_not() -> None:
    assert groups({0: waiting(inside=7), 1: waiting(inside=9)}) == (Group((0, 1), waiting(inside=7)),)
    assert len(groups({0: waiting(40), 1: waiting(41)})) == 2


def test_who_is_held_from_outside_is_by_itself_and_first_among_equals() -> None:
    frames = waiting().main.frames

    said = told(
        {0: waiting(), 1: stack(*frames, state="T"), 2: stack(*frames, tracer=77), 3: stack(*frames, state="D")}
    )

    assert said == [
        "rank 1 is stopped (SIGSTOP or the terminal), in `all_reduce`, called by `step` (train.py:40)",
        "rank 2 is held by a debugger (pid 77), in `all_reduce`, called by `step` (train.py:40)",
        "rank 3 is in a system call that cannot be interrupted, in `all_reduce`, called by `step` (train.py:40)",
        "rank 0 waits in `all_reduce`, called by `step` (train.py:40)",
    ]


def test_without_frames_the_system_call_tells() -> None:
    same = stack(active=None, waits_in="futex")

    assert told({0: same, 1: same, 2: stack(state="R", active=None)}) == [
        "rank 2 is running",
        "ranks 0, 1 wait in `futex`",
    ]


def test_a_program_s_own_wait_has_no_caller() -> None:
    assert told({0: stack(Frame("recv", TRAIN, 3), BOOT)}) == ["rank 0 waits in `recv` (train.py:3)"]


def test_a_thread_that_is_all_library() -> None:
    assert told({0: stack(Frame("select", "/usr/lib/python3.11/selectors.py", 5))}) == [
        "rank 0 waits in `select` (selectors.py:5)"
    ]


def test_what_started_the_program_is_left_out() -> None:
    assert [frame.function for frame in own_frames(waiting().main.frames)] == ["wait", "all_reduce", "step", "<module>"]
    assert own_frames([BOOT]) == (BOOT,)


def test_one_that_has_ended() -> None:
    assert (held(stack(state="Z")), told({0: stack(state="Z", active=None)})) == (
        "ended and not reaped",
        ["rank 0 is ended and not reaped"],
    )
