"""The coordinator's end of a connection until it is a link. Not here: who may come in, and how many. Read next: `link.py`."""

import json
import socket
import time
from typing import Any

from rankguard._version import __version__
from rankguard.nodes.ends import NEVER_SAID, Clock, Link, clipped
from rankguard.nodes.proof import AGENT, COORDINATOR, is_nonce, nonce, prove, proven
from rankguard.nodes.tcp import local_of, peer_of, tune
from rankguard.record import Record
from rankguard.wire import Message, Wire

UNPROVEN_BYTES = 64 << 10
"""Of a message of an end that has not proven anything. It may say one."""
PROVE_S = 10.0
"""Within so many seconds it is to be said."""


class Hello(Record):
    """What an agent said to be let in. `message` is its own; `peer` the address that it comes from."""

    message: Message
    version: str
    peer: str


class Joining:
    """The coordinator's end of a connection that is not trusted yet. `since`: when it came, on `clock`.

    It asks at once. `receive` gives the agent's hello when it has proven that it knows the token, and is of our version;
    one that does not is refused here, and `error` says why. Then `accept` or `refuse` it. Whoever owns it drops one that is
    silent for `PROVE_S`, and bounds how many there are (`door.py`).
    """

    def __init__(self, end: socket.socket, token: str, clock: Clock = time.monotonic) -> None:
        tune(end)
        self.since, self._clock, self._token = clock(), clock, token
        self.peer, self.local = peer_of(end), local_of(end)
        self._wire = Wire(end, frame=UNPROVEN_BYTES)
        self._challenge, self._answer, self._text = nonce(), "", ""
        self._proven = False
        self.error: str | None = None
        self._wire.send({"is": "challenge", "nonce": self._challenge, "rankguard": __version__})

    def fileno(self) -> int:
        return self._wire.fileno()

    @property
    def pending(self) -> bool:
        return self._wire.pending

    @property
    def closed(self) -> bool:
        """It is gone, or refused: close it."""
        return self._wire.closed

    def flush(self) -> None:
        self._wire.flush()

    def receive(self) -> Hello | None:
        """The hello, once it is whole and proven."""
        if self._proven:
            return None
        try:
            said = self._wire.receive_one()
        except NEVER_SAID as error:
            self._turn_away(f"it said what is no hello: {clipped(error)}")
            return None
        if said is None:
            if self.closed and self.error is None:
                self.error = "it went without a hello"
            return None
        return self._heard(said)

    def _heard(self, said: Any) -> Hello | None:
        if not isinstance(said, dict) or said.get("is") != "hello" or not is_nonce(said.get("nonce")):
            self._turn_away("it said what is no hello")
            return None
        self._answer, self._text, version = said["nonce"], str(said.get("hello")), str(said.get("rankguard"))
        proof = said.get("proof")
        self._proven = proven(proof, self._token, AGENT, self._challenge, self._answer, self._text)
        if version != __version__:
            self.refuse(
                f"it has rankguard {clipped(version)}, and the coordinator has {__version__}",
                "install the same version on every node",
            )
        elif not self._proven:
            self.refuse(
                "its token is not the job's",
                "start every node with the same command; a job that has just ended may still hold the port",
            )
        else:
            try:
                message = json.loads(self._text)
            except NEVER_SAID:
                message = None
            if isinstance(message, dict):
                return Hello(message, version, self.peer)
            self.refuse("it said what is no hello")
        return None

    def accept(self) -> Link:
        """Let it in: it learns that we know the token, too. This object is done with."""
        assert self._proven
        self._wire.send({"is": "welcome", "proof": self._prove()})
        return Link(self._wire, self.peer, self.local, self._clock)

    def refuse(self, statement: str, hint: str = "") -> None:
        """Say why not, and be done. An agent believes it, and gives up, if both of us have proven that we know the token."""
        said: Message = {"is": "refused", "statement": statement, "hint": hint}
        if self._proven:
            said["proof"] = self._prove(f"{statement}\n{hint}")
        self._wire.send(said)
        self._turn_away(statement)

    def close(self) -> None:
        self._wire.close()

    def _prove(self, more: str = "") -> str:
        return prove(self._token, COORDINATOR, self._challenge, self._answer, f"{self._text}\n{more}")

    def _turn_away(self, error: str) -> None:
        self.error = self.error or error
        self._proven = False
        self._wire.closed = True
