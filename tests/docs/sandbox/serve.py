import signal
import sys

import rankguard

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
rankguard.this_rank().ready({"max_tokens": 4096})
while True:
    signal.pause()
