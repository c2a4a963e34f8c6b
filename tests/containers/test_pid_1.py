"""As PID 1: signals from outside reach the ranks as they came, whatever falls to us is reaped, and the status is the job's.

The exit status of every kind of end, and signals to warden and supervisor: `tests/faults/test_surroundings.py`.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from tests.containers.box import container, needs_container
from tests.faults.nest import Nest, children, command_line
from tests.marks import slowly
from tests.others import SRC

pytestmark = needs_container
SAYS = "import signal, os, sys, time\n"
TELLS = (
    SAYS
    + """
def heard(number, _frame):
    with open('heard', 'a') as file: file.write(signal.Signals(number).name + '\\n')
    if number in (15, 2): sys.exit(int(sys.argv[1]))
for number in (15, 2, 10, 12): signal.signal(number, heard)
with open('up', 'a') as file: file.write('up\\n')
while True: signal.pause()
"""
)
ORPHANS = (
    SAYS
    + """
# Each is a grandchild whose parent is gone at once; most have ended when the last is made.
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)
open('made', 'w').write('made\\n')
def zombies():
    found = 0
    for name in os.listdir('/proc'):
        try:
            found += name.isdecimal() and open(f'/proc/{name}/stat').read().rpartition(')')[2].split()[0] == 'Z'
        except OSError: pass
    return found
until = time.monotonic() + 20
while (found := zombies()) and time.monotonic() < until: time.sleep(0.01)
open('zombies', 'w').write(str(found))
"""
)


@pytest.mark.parametrize(("number", "code", "expected"), [(15, 0, 0), (15, 3, 143), *slowly((2, 0, 0), (2, 3, 130))])
def test_a_request_reaches_the_ranks_as_it_came(number: int, code: int, expected: int) -> None:
    """A clean end after a request is 0, as PID 1 too; any other is 128 + n."""
    with Nest() as nest:
        nest.run("-n", "2", program(nest, TELLS), str(code), wrap=container())
        nest.until("up", 2)
        front = nest.ours()["front"]
        os.kill(front, signal.SIGUSR1)
        nest.until("heard", 2)
        os.kill(front, number)
        status, said = nest.ended()
        assert status == expected, said
        with open(f"{nest.folder}/heard") as file:
            assert file.read().split() == [*["SIGUSR1"] * 2, *[signal.Signals(number).name] * 2]


@pytest.mark.parametrize("count", ["200", *slowly("5000")])
def test_orphans_of_ranks_are_reaped(count: str) -> None:
    with Nest() as nest:
        nest.run("-n", "1", program(nest, ORPHANS), count, wrap=container())
        status, said = nest.ended(30)
        assert status == 0, said
        with open(f"{nest.folder}/zombies") as file:
            assert file.read() == "0"


def test_orphans_that_fall_to_pid_1_itself_are_reaped() -> None:
    """Of processes that came in from outside, as `kubectl exec` makes them: none of ours was ever above them."""
    with Nest() as nest:
        nest.run("-n", "1", program(nest, TELLS), "0", wrap=container())
        nest.until("up", 1)
        front = nest.ours()["front"]
        enter = ["nsenter", "-t", str(front), "-p", "-m", "sh", "-c", f'cd {nest.folder} && exec "$@"', "sh"]
        subprocess.run([*enter, sys.executable, "-I", "-S", program(nest, ORPHANS), "200"], check=True)
        with open(f"{nest.folder}/zombies") as file:
            assert file.read() == "0"
        os.kill(front, signal.SIGTERM)
        assert nest.ended()[0] == 0


def test_killed_from_outside_nothing_is_left() -> None:
    """The kernel ends a PID namespace with its first process; nobody is left to remove files."""
    with Nest() as nest:
        nest.run("-n", "2", program(nest, TELLS), "0", wrap=container())
        nest.until("up", 2)
        os.kill(nest.ours()["front"], signal.SIGKILL)
        nest.front.wait(10)
        assert nest.alive() == {}


def program(nest: Nest, text: str) -> str:
    path = f"{nest.top}/{abs(hash(text))}.py"
    with open(path, "w") as file:
        file.write(text)
    return path


WHETHER = "from rankguard.linux.container import entered; print(entered())"


@pytest.mark.parametrize(("first", "expected"), [("sh", "True"), ("pause", "False")])
def test_whether_we_came_in_from_outside(first: str, expected: str) -> None:
    """The last word of a container is not for `kubectl exec`; in a PID namespace that a pod's containers share, every
    container's own process comes in from outside.
    """
    with Nest() as nest:
        shutil.copy("/bin/sleep", f"{nest.top}/pause")
        stays = f"{nest.top}/pause 60" if first == "pause" else "sleep 60; :"
        nest.start([*container(), "sh", "-c", f"echo up >up; {'exec ' if first == 'pause' else ''}{stays}"])
        nest.until("up")
        outer = children(nest.front.pid)[0]
        enter = ["nsenter", "-t", str(outer), "-p", "-m", "env", f"PYTHONPATH={SRC}", sys.executable, "-c", WHETHER]
        deadline(lambda: command_line(outer).startswith(f"[{first}]"))
        told = subprocess.run(enter, capture_output=True, text=True, check=True)
        assert told.stdout.strip() == expected


def test_what_is_below_pid_1_belongs_to_the_container() -> None:
    with Nest() as nest:
        below = ["sh", "-c", f'{sys.executable} -c "{WHETHER}"; :']
        nest.start([*container(), "sh", "-c", '"$@" >told; echo >>told', "sh", *below])
        assert nest.front.wait(20) == 0
        with open(f"{nest.folder}/told") as file:
            assert file.read().strip() == "False"


def deadline(true) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
