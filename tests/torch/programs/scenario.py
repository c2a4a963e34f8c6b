"""A rank of the scenarios: `scenario.py FOLDER [HOW RANK …]` asks for what a launcher has to tell it, and leaves a file of its number.

HOW: `raise`, `exit-138`, `exit-85`, `segv`, `killed`, of that RANK; the others wait for what the launcher makes of it.
"""

import ctypes
import os
import signal
import sys
import time

TOLD = (
    "LOCAL_RANK", "RANK", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME", "LOCAL_WORLD_SIZE", "WORLD_SIZE",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS",
    "TORCHELASTIC_RUN_ID", "TORCHELASTIC_ERROR_FILE", "SENTINEL",
)  # fmt: skip

folder, *rest = sys.argv[1:]
missing = [name for name in TOLD if name not in os.environ]
if missing:
    raise KeyError(f"not told: {missing}")
rank = os.environ["RANK"]
with open(f"{folder}/.{rank}", "w") as file:
    file.write(" ".join(os.environ[name] for name in ("WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK")))
os.rename(f"{folder}/.{rank}", f"{folder}/{rank}")
print(f"rank {rank} was here", flush=True)
if rest:
    how, whom = rest
    if rank != whom:
        signal.pause()
    while not all(os.path.exists(f"{folder}/{other}") for other in range(int(os.environ["WORLD_SIZE"]))):
        time.sleep(0.01)  # a launcher that is quick ends the others before they have said that they were there
    if how == "raise":
        raise RuntimeError("as it was asked to")
    if how.startswith("exit-"):
        sys.exit(int(how[5:]))
    if how == "segv":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)
