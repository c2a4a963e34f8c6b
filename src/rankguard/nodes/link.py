"""The link: one TCP connection between the supervisor of a node (agent) and that of the job (coordinator).

Frames as in `../wire.py`: JSON, no pickles, no descriptors, of bounded size. Non-blocking on both sides, for a
selector's loop.

    coordinator                                  agent
    listen, Door: accept, Joining                Dialing: look up, connect; begin again until it is a link
      challenge (nonce)                  →
                                         ←       hello (nonce, version, its own message, proof that it knows the token)
      welcome (proof), or refused        →       (both have proven: each has a Link)
      Link                               ↔       Link

What is said before the proof is believed by nobody, and bounded (`joining.py`, `door.py`). On a link, `send` (facts, orders)
overtakes `send_output`, which is dropped and counted when the other end is too slow: output delays no news by more than
what is on its way already. `send_behind` is for news that may not overtake. Heartbeats are messages like others:
whoever owns a link looks at `last_heard`. To end one so that the last word arrives: `part`.

An agent that gave up between hello and welcome looks like one that came and went: count it when it answers, not before.

Read next: `ends.py`, `joining.py`, `door.py`, `dialing.py`; `proof.py` (what is protected), `tcp.py` (sockets).
"""

from rankguard.nodes.dialing import Dialing
from rankguard.nodes.door import Door
from rankguard.nodes.ends import Link, part
from rankguard.nodes.joining import PROVE_S, Hello, Joining
from rankguard.nodes.tcp import address_of, listen
from rankguard.wire import Message, packed

__all__ = [
    "PROVE_S",
    "Dialing",
    "Door",
    "Hello",
    "Joining",
    "Link",
    "Message",
    "address_of",
    "listen",
    "packed",
    "part",
]
