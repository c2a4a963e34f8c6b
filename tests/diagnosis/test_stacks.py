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
        "rank 1 is stopped by a signal (SIGSTOP or SIGTSTP), in `all_reduce`, called by `step` (train.py:40)",
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


def spinning(line: int, *below: Frame) -> Stack:
    return stack(*below, Frame("tokenize", TRAIN, line), Frame("<module>", TRAIN, 50), BOOT, state="R", active=True)


def test_one_that_runs_is_met_on_any_line_of_its_function() -> None:
    assert told({0: spinning(5), 1: spinning(6), 2: waiting()}) == [
        "rank 2 waits in `all_reduce`, called by `step` (train.py:40)",
        "ranks 0, 1 are in `tokenize` (train.py)",
    ]
    assert told({0: spinning(5), 1: spinning(5)}) == ["all 2 ranks are in `tokenize` (train.py:5)"]


def test_what_a_library_does_below_one_that_runs_is_noise() -> None:
    scan, load = Frame("scan_once", "/usr/lib/python3.11/json/scanner.py", 40), Frame("loads", LIB, 3)

    assert told({0: spinning(5, scan, load), 1: spinning(5, load)}) == [
        "all 2 ranks are in `loads`, called by `tokenize` (train.py:5)"
    ]
    assert len(groups({0: spinning(5, load), 1: spinning(6, load)})) == 2  # two calls of the program


def test_one_that_spins_in_a_collective_is_with_those_that_sleep_there() -> None:
    spins = stack(*waiting().main.frames[1:], state="R", active=True)

    assert len(groups({0: waiting(), 1: spins})) == 1
    assert len(groups({0: waiting(40), 1: stack(*waiting(41).main.frames[1:], state="R", active=True)})) == 2


TRAINER = "/venv/lib/python3.11/site-packages/trainer/loop.py"


def fitting(*below: Frame) -> Stack:
    fit = (Frame("run_epoch", TRAINER, 9), Frame("fit", TRAINER, 3))
    return stack(*below, *fit, Frame("main", TRAIN, 12), Frame("<module>", TRAIN, 50))


def test_of_a_trainer_the_call_that_tells_most_is_named() -> None:
    torch = "/venv/lib/python3.11/site-packages/torch"
    reduces = fitting(Frame("wait", f"{torch}/c10d.py", 8), Frame("all_reduce", f"{torch}/c10d.py", 7))
    loads = fitting(Frame("poll", "/usr/lib/python3.11/selectors.py", 4), Frame("__next__", f"{torch}/data.py", 7))

    assert told({0: reduces, 1: loads, 2: reduces, 3: fitting()}) == [
        "rank 1 waits in `__next__` below `fit`, called by `main` (train.py:12)",
        "rank 3 waits in `fit`, called by `main` (train.py:12)",
        "ranks 0, 2 wait in `all_reduce` below `fit`, called by `main` (train.py:12)",
    ]


def with_gil_in(thread: Thread, main: Stack) -> Stack:
    return main.replace(threads=(main.main, thread))


def test_a_thread_that_sleeps_with_the_gil_is_said_and_keeps_its_rank_apart() -> None:
    native = Frame("native", TRAIN, 7)
    sleeps = Thread(2, "loader", "S", (native,), holds_gil=True)
    computes = sleeps.replace(state="R")

    said = told({0: waiting(), 1: with_gil_in(sleeps, waiting()), 2: with_gil_in(computes, waiting())})

    assert said == [
        "rank 1 waits for its thread `loader`, which sleeps with the GIL in `native` (train.py:7)",
        "ranks 0, 2 wait in `all_reduce`, called by `step` (train.py:40)",
    ]


def test_a_main_thread_that_has_ended_before_others() -> None:
    one, other = Thread(1, "python", "Z"), Thread(2, "python", "S")

    assert held(Stack(1, "python", (one, other))) == "without its main thread, which has ended; 1 other thread lives on"
    assert held(Stack(1, "python", (one, other.replace(state="Z")))) == "ended and not reaped"


def test_what_the_kernel_call_is_about_is_said_where_no_frames_are() -> None:
    asleep = Thread(1, "cat", "S", waits_in="read", waits_on="pipe:[7]")

    assert told({0: Stack(1, "cat", (asleep,))}) == ["rank 0 waits in `read` on pipe:[7]"]


def test_many_ranks() -> None:
    odd = stack(Frame("load_shard", TRAIN, 88), BOOT)

    assert told({rank: odd if rank == 300 else waiting() for rank in range(512)}) == [
        "rank 300 waits in `load_shard` (train.py:88)",
        "ranks 0-299, 301-511 wait in `all_reduce`, called by `step` (train.py:40)",
    ]
    assert told({rank: waiting(40 + rank % 2) for rank in range(64)}) == [
        "32 of 64 ranks (0, 2, 4, 6, 8 …) wait in `all_reduce`, called by `step` (train.py:40)",
        "32 of 64 ranks (1, 3, 5, 7, 9 …) wait in `all_reduce`, called by `step` (train.py:41)",
    ]
