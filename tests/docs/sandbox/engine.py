"""An engine that stands for the real ones: a root, two workers below it, a health page that says 200 once they are up.

It takes any arguments. SIGTERM ends it as engines end: the workers first, then itself, with 0.
"""

import http.server
import os
import signal
import sys
import threading

PORT = int(os.environ.get("ENGINE_PORT", "0"))


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_args):
        pass


def worker():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        signal.pause()


def main():
    asked = threading.Event()
    workers = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            worker()
        workers.append(pid)
    signal.signal(signal.SIGTERM, lambda *_: asked.set())  # not before: no worker is to have it, not even for a moment
    server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("the engine is up", " ".join(sys.argv[1:]), flush=True)
    asked.wait()
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    for pid in workers:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
