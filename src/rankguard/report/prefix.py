"""What stands before each line of a rank on the console.

`[rank] ` unless a template is given (`[node:rank] ` on several machines), nothing when one rank alone is shown. The template is torchrun's
(`TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE` of torch 2.13, `string.Template.safe_substitute`): `${rank}`, `${local_rank}`,
`${role_name}`, and our `${hostname}` and `${node}`; an unknown name stays as it is, and an empty template is no prefix.
"""

import re

from rankguard.jobspec import JobSpec

BOTH = 3
_PATTERN = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})", re.ASCII)


def prefix(spec: JobSpec, rank: int, name: str | None = None) -> bytes:
    """Of a rank's lines on the console. `name`: of its machine, where that is not ours."""
    if spec.prefix is None and len(shown_ranks(spec)) == 1:
        return b""
    return marked(spec, rank, name)


def marked(spec: JobSpec, rank: int, name: str | None = None) -> bytes:
    """The prefix of a line that stands among others' in any case (`filtered_stdout.log`)."""
    node, local = (0, rank) if spec.nodes is None else divmod(rank, spec.nodes.nproc)
    if spec.prefix is None:
        return (f"[{rank}] " if spec.nodes is None else f"[{node}:{rank}] ").encode()
    known = {
        "rank": str(rank),
        "local_rank": str(0 if spec.virtual_local_rank else local),
        "role_name": spec.role,
        "hostname": name or spec.node,
        "node": str(node),
    }

    def one(match: re.Match[str]) -> str:
        return "$" if match[1] else known.get(match[2] or match[3], match[0])

    return _PATTERN.sub(one, spec.prefix).encode(errors="replace")


def shown_ranks(spec: JobSpec) -> list[int]:
    """Ranks of which the console shows a stream."""
    return [rank for rank in range(spec.nprocs) if hidden(spec, rank) != BOTH]


def hidden(spec: JobSpec, rank: int) -> int:
    """The streams of a rank that the console does not show, as bits."""
    return spec.hidden[rank] if spec.hidden else 0
