"""How both ends of a link show that they know the job's token, without telling it.

HMAC-SHA256 (RFC 2104) over both ends' nonces, with a label for each direction, so that neither an answer of an earlier
connection nor one's own can be played back. The agent proves first: whoever only asks learns nothing of a coordinator.
What is not protected: the messages after it are neither sealed nor secret, as in torch's own rendezvous, so a network
where others can alter packets is none to run on; and whoever listens in an agent's place can try tokens at leisure, so
a token is random, not a word. An empty token proves only that both speak of the same job's address.
"""

import hmac
import os

AGENT, COORDINATOR = "rankguard link 1 agent", "rankguard link 1 coordinator"
_NONCE = 32


def nonce() -> str:
    """Fresh and random: 64 hexadecimal digits."""
    return os.urandom(_NONCE).hex()


def is_nonce(said: object) -> bool:
    """It may be one."""
    return isinstance(said, str) and len(said) == 2 * _NONCE and all(each in "0123456789abcdef" for each in said)


def prove(token: str, label: str, challenge: str, answer: str, text: str) -> str:
    """That whoever has the role `label` knows `token`, and means this text. Both nonces have one length, the text is last."""
    told = f"{label}\n{challenge}\n{answer}\n{text}"
    return hmac.digest(_key(token), told.encode("utf-8", "surrogatepass"), "sha256").hex()


def proven(said: object, token: str, label: str, challenge: str, answer: str, text: str) -> bool:
    """Whether `said` is that proof; how long the answer takes tells nothing."""
    right = prove(token, label, challenge, answer, text)
    return isinstance(said, str) and hmac.compare_digest(said.encode("utf-8", "surrogatepass"), right.encode())


def _key(token: str) -> bytes:
    return token.encode("utf-8", "surrogateescape")
