"""Several commands on the machine of the endpoint, and no number given to any: the first is node 0, the others join it."""

import os
import subprocess
import sys
from pathlib import Path

from rankguard.linux import ports

SAY = """
import os, sys
with open(sys.argv[1], "w") as told:
    told.write(os.environ["GROUP_RANK"])
open(sys.argv[2], "rb", buffering=0).read(1)
"""


def test_the_first_is_node_0_and_one_more_is_not_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(SAY)
    told, end = tmp_path / "told", tmp_path / "end"
    for fifo in (told, end):
        os.mkfifo(fifo)
    port, lock = ports.hold_free_port()
    lock.close()
    words = [
        "--nnodes",
        "2",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint",
        f"localhost:{port}",
        "--join-timeout",
        "30",
        "-n",
        "1",
    ]
    command = [sys.executable, "-m", "rankguard", "run", *words, str(tmp_path / "program.py"), str(told), str(end)]

    fronts = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = ""
    reads, writes = os.open(told, os.O_RDWR), os.open(end, os.O_RDWR)
    while len(said) < 2:
        said += os.read(reads, 2).decode()
    more = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60)
    os.write(writes, b"xx")
    ends = [front.communicate(timeout=60)[1] for front in fronts]
    for fd in (reads, writes):
        os.close(fd)

    assert sorted(said) == ["0", "1"]
    assert [front.returncode for front in fronts] == [0, 0], ends
    assert more.returncode == 125
    assert f"unable to listen on localhost:{port}: Address already in use" in more.stderr
