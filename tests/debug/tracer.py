"""A debugger as the kernel knows it (ptrace(2)): holds one process, and does what it is told on stdin.

`python tracer.py PID`: says `holds t` when the process stands; then `wait` (look at what happened to it) or `let go`.
"""

import ctypes
import os
import sys
from pathlib import Path

SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
WALL = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def ptrace(request: int, pid: int) -> None:
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), None, None) != 0:
        print(f"ptrace: {os.strerror(ctypes.get_errno())}", flush=True)
        sys.exit()


pid = int(sys.argv[1])
ptrace(SEIZE, pid)
ptrace(INTERRUPT, pid)
os.waitpid(pid, WALL)
print("holds", Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0], flush=True)
for line in sys.stdin:
    if line == "wait\n":
        print("saw", os.waitpid(pid, WALL)[1], flush=True)
    else:
        ptrace(DETACH, pid)
        print("let go", flush=True)
