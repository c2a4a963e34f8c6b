"""One Python rank of a cascade, for bench/cascades.py: all are joined to the culprit, which raises and lingers.

`rank.py DIR CULPRIT how LINGER_S DELAY_S [SECOND GAP_S]`. How the culprit takes its leave, and where it closes the
connections: `plain` (nowhere), `finally`, `with`, `context` (while another error is handled), `thread`. A rank whose
connection is closed waits DELAY_S and raises what `socket` or `multiprocessing` would. SECOND raises by itself, GAP_S
after the culprit (`everybody`: all ranks raise the same).
"""

import os
import socket
import sys
import time

folder, culprit, how, linger, delay = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]), float(sys.argv[5])
second, gap = (sys.argv[6], float(sys.argv[7])) if len(sys.argv) > 6 else ("-1", 0.0)
me, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def join():
    if me == culprit:
        server = socket.create_server(("127.0.0.1", 0))
        with open(f"{folder}/new", "w") as file:
            file.write(str(server.getsockname()[1]))
        os.rename(f"{folder}/new", f"{folder}/port")
        peers = [server.accept()[0] for _ in range(world - 1)]
        for peer in peers:
            peer.recv(1)
        for peer in peers:
            peer.send(b"x")
        return peers
    while not os.path.exists(f"{folder}/port"):
        time.sleep(0.001)
    with open(f"{folder}/port") as file:
        peer = socket.create_connection(("127.0.0.1", int(file.read())))
    peer.send(b"x")
    peer.recv(1)
    return [peer]


def stamp():
    with open(f"{folder}/failed.{me}", "w") as file:
        file.write(f"{time.monotonic():.9f}\n")


def bad_batch(step):
    stamp()
    raise ValueError(f"bad batch at step {step}")


class Group:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        leave()


def leave():
    for peer in peers:
        peer.close()
    time.sleep(linger)


def train():
    if second == "everybody" or me == int(second):
        time.sleep(max(0.0, 0.02 + (gap if me != culprit else 0)))
        bad_batch(7)
    if me != culprit and not peers[0].recv(1):
        time.sleep(delay)
        raise ConnectionError(f"[rank {me}] Connection closed by peer")
    time.sleep(0.02 if second != "-1" else 0.003)
    if how == "plain":
        bad_batch(7)
    if how == "finally":
        try:
            bad_batch(7)
        finally:
            leave()
    if how == "with":
        with Group():
            bad_batch(7)
    if how == "context":
        try:
            try:
                bad_batch(7)
            finally:
                leave()
                peers[0].send(b"goodbye")  # raises OSError: it is closed
        except OSError as error:
            raise RuntimeError("unable to leave the group") from error


peers = join()
train()
