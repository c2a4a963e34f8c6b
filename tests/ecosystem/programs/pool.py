"""A pool of multiprocessing by one start method: a worker is busy for ever, and whoever kills it has its task lost."""

import multiprocessing as mp
import os
import signal
import sys


def busy(number):
    sys.stdout.write(f"worker {os.getpid()} is busy with {number}\n")
    sys.stdout.flush()
    signal.pause()


def square(number):
    return number * number


def main():
    method, orders = sys.argv[1:]
    context = mp.get_context(method)
    with context.Pool(2) as pool, open(orders) as killed:
        pool.apply_async(busy, (0,))
        for number, _line in enumerate(killed, 1):
            pool.apply_async(busy, (number,))
            print(f"squares {pool.map_async(square, range(4)).get(30)}", flush=True)
        pool.terminate()


if __name__ == "__main__":
    main()
