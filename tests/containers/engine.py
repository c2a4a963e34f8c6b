"""`engine.py WRAPPER`: starts two ranks through a wrapper script and waits for their word, as an engine does that binds
its ranks to NUMA nodes. Its own end of each pipe stays open, so it never sees an end of file.
"""

import multiprocessing
import sys


def rank(writer) -> None:
    writer.send("ready")


def main() -> None:
    context = multiprocessing.get_context("spawn")
    context.set_executable(sys.argv[1])
    kept = []
    for _ in range(2):
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=rank, args=(writer,))
        process.start()
        kept.append((process, reader, writer))
    for _process, reader, _writer in kept:
        reader.recv()
    print("all ready", flush=True)


if __name__ == "__main__":
    main()
