"""The launcher of text-generation-inference, played: shards in groups of their own, ready by a socket's path.

Read from `launcher/src/main.rs` (db931fc), and said in words of our own; the real one is a Rust program.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.engines.parts import Part, tell

LOOK_S = 0.1
TERM_S = 1.0
"""Its own is 90."""


def serve(folder: str, tp: int = 2) -> None:
    """Looks at everybody every 100 ms; one that has ended ends all: SIGTERM to each shard, not to what is below it."""
    tell(folder, "engine")
    script = Path(folder, "bin", "text-generation-server")
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom tests.engines import tgi\ntgi.shard()\n")
    script.chmod(0o755)
    shards = [
        subprocess.Popen(
            [script, "serve", "model", "--uds-path", f"{folder}/uds", "--sharded"],
            env={**os.environ, "RANK": str(number), "WORLD_SIZE": str(tp), "STAGE": folder},
            process_group=0,
        )
        for number in range(tp)
    ]
    served = False
    while True:
        time.sleep(LOOK_S)
        for number, each in enumerate(shards):
            if each.poll() is not None:
                print(f"Shard {number} {'crashed' if served else 'failed to start'}", file=sys.stderr, flush=True)
                _end(shards)
        if not served and all(os.path.exists(f"{folder}/uds-{n}") for n in range(tp)):
            served = True
            print("Connected", flush=True)


def _end(shards: "list[subprocess.Popen[bytes]]") -> None:
    for each in shards:
        if each.poll() is None:
            each.send_signal(signal.SIGTERM)
            try:
                each.wait(TERM_S)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()
    os._exit(1)


def shard() -> None:
    """A server of one rank."""
    folder, number = os.environ["STAGE"], os.environ["RANK"]
    part = Part(folder, f"shard-{number}")
    part.play()
    Path(f"{folder}/uds-{number}").touch()
    part.play()
    if part.forks():
        time.sleep(3600)
    part.play()
