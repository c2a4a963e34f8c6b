# ruff: noqa: INP001  # a script, not a package
"""Makes docs/from-torchrun.md from the table of options: `PYTHONPATH=src python docs/make_from_torchrun.py`.

`tests/cli/test_from_torchrun.py` holds the page to `cli/options.py`, `tests/torch/test_parity.py` holds the table to
torch's own parser and to what ranks see under the real torchrun.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from rankguard.cli.options import ELSEWHERE, OPTIONS, Option  # noqa: E402  # the path comes first

PAGE = ROOT / "docs" / "from-torchrun.md"

HEAD = """# From torchrun

Replace the word: `torchrun --nproc-per-node 8 train.py --lr 0.1` becomes `rankguard run --nproc-per-node 8 train.py --lr 0.1`. Options keep their names, with hyphens or underscores, abbreviated or from `PET_*` variables; each does the same, or more, or a line says why it has no effect, or it is refused with a hint. Several machines: the same command on each node, as with torchrun ([nodes.md](nodes.md)).

Made by `docs/make_from_torchrun.py` from the table of options, which is tested against torch 2.13's own parser and, option by option, against what ranks see under torchrun itself. Do not edit it by hand: `UPDATE_GOLDEN=1 pytest tests/cli/test_from_torchrun.py` writes it anew.

## What differs in any case

| | torchrun | rankguard |
|---|---|---|
| exit status | 1 for every failure and for SIGTERM | the first failed rank's own code, 128 + n for signal n, 124 for a time-out, 0 for a job that ended cleanly when it was asked to ([all](signals.md#exit-status)) |
| which rank failed | the first in whole seconds, ties by rank | told from evidence; the others are `collateral` or `stopped` |
| SIGQUIT | ends the job | writes the stacks of all ranks; `--signals-to-handle SIGQUIT` gives it torchrun's meaning |
| SIGHUP under nohup | ends the job | stays ignored |
| after a failure | 30 s for the others | `--grace`, 5 s for all together |
| a rank or a node fails, on several machines | the others learn it by a time-out of a collective, or of the rendezvous | all nodes stop at once; each ends with the same verdict and exit status |
| a rank's children, ranks of a killed launcher | live on | end too |
| each line on the terminal | as it is; `[default0]:` with `--tee` | `[0] `, none for one rank; `--log-line-prefix-template` |
| files | only with `-r` or `-t`, in a folder of `/tmp` | in any case, in the run's folder; `rankguard runs` lists them, `rankguard report` shows the end again; `--log-dir /dev/null` keeps none |
| PROGRAM | under Python unless `--no-python` | the same, but an executable that is not a .py file is executed |
| `@record` | needed for a traceback in the summary | not needed; followed where it is |
| `$$` in an argument | becomes `$` | stays; `${local_rank}` is the rank's number under both |

## What ranks are told

torchrun's environment, but for these:

| variable | torchrun | rankguard |
|---|---|---|
| `MASTER_ADDR` | this machine's name, unless a port is given | 127.0.0.1; on several machines the host of the endpoint |
| `MASTER_PORT` | that of the store that torchrun listens with | a free one of node 0 below the ephemeral range, held until the job ends; never that of the endpoint, where rankguard itself listens |
| `TORCHELASTIC_USE_AGENT_STORE` | True | False: no agent hosts a store, so that rank 0 has to |
| `TORCHELASTIC_RUN_ID` | random, or `none` with `--master-port` | `--rdzv-id`, else the run's id; on several machines else `slurm-JOB.STEP` or `none` |
| `PYTHONUNBUFFERED` | not set (Python ranks have `-u`) | 1 unless set (and `-u`), for the ranks' own children too |
| `NOTIFY_SOCKET`, `RANKGUARD_RUN_ID`, `RANKGUARD_RUN_DIR` | | added ([ranks.md](ranks.md)) |

## Variables that torchrun itself reads

| variable | here |
|---|---|
| `PET_<OPTION>` | the default of that option, where the table has one for torchrun too; flags are 0 or 1 |
| `PYTHON_EXEC` | same: the Python that ranks run under |
| `TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE`, `TORCH_ELASTIC_SHUTDOWN_TIMEOUT` | same: defaults of `--log-line-prefix-template` and `--shutdown-timeout` |
| `OMP_NUM_THREADS` | same: 1 if it is not set and there are several ranks, but without six lines of warning |
| `CUDA_VISIBLE_DEVICES` | same; `-n gpu` counts what it leaves |
| `TORCHELASTIC_ENABLE_FILE_TIMER` | no effect, and a line says so |
| `LOGLEVEL`, `TORCHELASTIC_HEALTH_CHECK_PORT`, `TORCH_DISABLE_SHARE_RDZV_TCP_STORE`, `TORCHELASTIC_UNINTERRUPTIBLE_STATE_TIMEOUT` | of torchrun's own agent and store, which are not there; ranks inherit them |

## Options

The first word of the last column: *same*, *better*, *no effect* (accepted, and a line says so) or *refused* (with a hint).

"""


def page() -> str:
    """The whole page."""
    lines = ["| option | torchrun's default | ours | what differs |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows()]
    ours = ", ".join(f"`{option.name}`" for option in OPTIONS if option.torchrun is None)
    return f"{HEAD}{chr(10).join(lines)}\n\nOnly here: {ours}.\n"


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Option, torchrun's default, ours, what differs; none is empty."""
    for option in OPTIONS:
        if option.torchrun is not None:
            yield _names(option), _default(option, option.theirs), _ours(option), _emphasised(option.torchrun)
    yield "`-h` `--help`", "–", "–", "*better*: a screen for each topic, `--help TOPIC`"
    reason, hint = ELSEWHERE["--print-completion"]
    yield "`--print-completion` (2.15)", "–", "–", f"*refused*: it {reason}: `{hint}`"


def _names(option: Option) -> str:
    names = " ".join(f"`{name}`" for name in option.names)
    return f"{names} ({option.since})" if option.since else names


def _default(option: Option, value: object) -> str:
    if option.metavar is None:
        return "on" if value else "off"
    return "none" if value in (None, "", [], ()) else f"`{value}`"


def _ours(option: Option) -> str:
    return option.shown if option.shown is not None else _default(option, option.default)


def _emphasised(compared: str) -> str:
    for word in ("same", "better", "no effect", "refused"):
        if compared.startswith(word):
            return f"*{word}*{compared[len(word) :]}"
    raise ValueError(f"`{compared}` begins with none of the four words")


if __name__ == "__main__":
    PAGE.write_text(page())
