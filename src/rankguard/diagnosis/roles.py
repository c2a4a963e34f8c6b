"""What a process of somebody else's engine is: its role and index, and whether the others can go on without it.

The rules are data, tried in order; the first that fits decides. A title is a process's command line as it stands now
(setproctitle writes there), its environment the few `VARIABLES` of it that rules name. A rule that fits a process fits
the children that it forks, too, since they inherit both: so of those that are alike in one line of descent the topmost is
the rank, and the others are forks of it.

Rank-like is what an engine cannot lose: nobody replaces it. Processes that their own parents kill and replace by design
(gunicorn, Ray, dask) are not, however they are numbered. Not here: how processes are found (`linux/roster.py`), what
becomes of a failure (`core/`). Sources of the titles: the engines' calls of setproctitle (SGLang, vLLM 0.6 to 0.32, ATOM).
"""

import re
from collections.abc import Mapping, Sequence

from rankguard.diagnosis.words import clip
from rankguard.record import Record

_AT = r"(?P<at>(?:[_-](?:(?:ATTN_|MOE_)?[A-Z]{1,3}\d+|\d+))*)"
"""`_DP0_PP1_TP3`, `_1`, SGLang's `_PP0_ATTN_CP1_MOE_DP0_TP3`: places along the axes of a parallel engine."""
_AXES = ("TP", "PP", "DP", "EP")
"""Which of several places is the index: the first of these. Experts (EP) are numbered by the others."""
_NO_ENV: Mapping[str, str] = {}


class Rule(Record):
    """One rule: a pattern that is searched for in the title, else variables that all have to be there.

    Groups of the pattern: `role`, `index`, `at` (places, as `_AT`). `variables` of a rule with a pattern tell the index where
    the title does not. `may_end`: its ranks are a program with an end, so one that ends with 0 is no failure.
    """

    name: str
    pattern: str = ""
    role: str = ""
    """Where no group tells it."""
    ranklike: bool = False
    may_end: bool = False
    variables: tuple[str, ...] = ()
    because: str = ""


class Role(Record):
    """What a process is, and the rule that says so. `group`: its other places (`DP0_PP1`), where there are such."""

    role: str
    index: int | None = None
    ranklike: bool = False
    rule: str = "none"
    group: str | None = None
    may_end: bool = False


RULES: tuple[Rule, ...] = (
    Rule(
        "sglang",
        rf"^(?:sglang|sglang-jax|sgl_\w+)::(?P<role>(?:\w+?_)?scheduler|gpu_worker|detokenizer(?:_handler|_router)?"
        rf"|data_parallel_controller|router|multimodal_tokenizer){_AT}(?:::.*)?$",
        ranklike=True,
        because="SGLang does not replace a scheduler, detokenizer or controller that has ended",
    ),
    Rule(
        "sglang-tokenizer",
        r"^sglang::(?P<role>tokenizer_worker|http_server/multi_tokenizer_manager|http_server)\b",
        because="uvicorn replaces SGLang's HTTP workers",
    ),
    Rule(
        "vllm",
        rf"^[\w.-]+::(?P<role>\w*?(?:EngineCore(?:Proc)?|Worker)|APIServer|DPCoordinator){_AT}$",
        ranklike=True,
        because="vLLM does not replace a worker, an engine core or an API server that has ended",
    ),
    Rule(
        "parallel",
        r"^(?P<role>[\w.-]+::[\w./-]*?)_?(?P<at>(?:_?(?:TP|PP|DP|EP|CP|SP|DCP|PCP)\d+)+)$",
        ranklike=True,
        because="its title names its place in a parallel engine",
    ),
    Rule(
        "tgi",
        r"(?:^|/|\s)text-generation-server serve\b",
        role="shard",
        ranklike=True,
        variables=("RANK",),
        because="text-generation-inference does not replace a shard",
    ),
    Rule(
        "dynamo",
        r"\s-m dynamo\.(?P<role>frontend|vllm|sglang|trtllm)\b",
        ranklike=True,
        because="on one machine nobody replaces a component of Dynamo",
    ),
    Rule(
        "launcher",
        r"^(?:\S*/)?(?:python[\d.]*\s+(?:-\S+\s+)*)?(?:\S*/)?"
        r"(?P<role>mpirun|mpiexec(?:\.\w+)?|orterun|prterun|orted|prted|hydra_pmi_proxy|srun|slurmstepd|torchrun)\b",
        because="a launcher tells of its ranks itself",
    ),
    Rule(
        "torchrun",
        role="rank",
        ranklike=True,
        may_end=True,
        variables=("RANK", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"),
        because="its environment says that torchrun started it as a rank",
    ),
    *(
        Rule(
            name,
            role="rank",
            ranklike=True,
            may_end=True,
            variables=variables,
            because=f"its environment says that it is a rank ({variables[0]})",
        )
        for name, variables in (
            ("openmpi", ("OMPI_COMM_WORLD_RANK",)),
            ("pmix", ("PMIX_RANK",)),
            ("pmi", ("PMI_RANK",)),
            ("slurm", ("SLURM_PROCID", "SLURM_STEP_ID")),
            # pytorch_lightning/strategies/launchers/subprocess_script.py: rank 0 starts the others of its node
            ("lightning", ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_PORT")),
            # dmlc-core's trackers, whose variables XGBoost's collectives read
            ("dmlc", ("DMLC_TASK_ID", "DMLC_TRACKER_URI")),
        )
    ),
    Rule(
        "ray",
        r"^(?P<role>ray::[^\s(]*)|/ray/(?:core|_private|dashboard|autoscaler)/\S|(?:^|/)(?:raylet|gcs_server)(?:\s|$)",
        role="ray",
        because="Ray replaces its workers, and ends those that it does not need",
    ),
    Rule("dask", r"^dask (?P<role>worker|scheduler)\b", because="dask's nanny replaces its worker"),
    Rule(
        "gunicorn",
        r"^(?:\[\w+\] )?gunicorn: (?P<role>worker|master|arbiter)",
        because="gunicorn's master replaces its workers",
    ),
    Rule(
        "celery", r"^\[celeryd: |(?:^|/|\s)celery\s.*\bworker\b", role="celery", because="celery replaces its workers"
    ),
    Rule("uvicorn", r"(?:^|/|\s)uvicorn\s", role="uvicorn", because="uvicorn replaces its workers"),
    Rule(
        "multiprocessing",
        r"from multiprocessing\.(?P<role>resource_tracker|semaphore_tracker|forkserver|spawn) import",
        because="what multiprocessing starts is its parent's affair",
    ),
    Rule(
        "compiler",
        r"(?:^|/)(?P<role>cc1(?:plus)?|[\w-]*(?:gcc|g\+\+|clang|clang\+\+)(?:-[\d.]+)?|c\+\+|cc|ld(?:\.\w+)?|lld|as|collect2"
        r"|nvcc|cicc|ptxas|fatbinary|cudafe\+\+|nvlink|hipcc|rustc|cargo|ninja|make|cmake)(?:\s|$)"
        r"|torch/_inductor/compile_worker",
        role="compiler",
        because="whoever started a compiler takes its status",
    ),
    Rule(
        "tool",
        r"^(?:\S*/)?(?P<role>git|nvidia-smi|rocm-smi|lscpu|ldconfig|uname|which|ps|py-spy|ssh)(?:\s|$)",
        because="whoever started a tool takes its status",
    ),
)

VARIABLES: tuple[str, ...] = tuple(sorted({name for rule in RULES for name in rule.variables}))
"""All that is ever looked at of a process's environment."""


def user_rule(pattern: str) -> Rule:
    """A rule of `--rank-pattern`, to stand in front of the others. Raises `ValueError` with what is wrong with it.

    The index is the group `index`, else the first group that is not `role`.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"expected a regular expression: {error}") from None
    if compiled.search("") is not None:
        raise ValueError("expected a pattern that tells ranks apart from others: this one matches everything")
    return Rule(
        f"--rank-pattern {pattern}", pattern, role="rank", ranklike=True, because="the title matches --rank-pattern"
    )


def role_of(
    title: str,
    rules: Sequence[Rule] = RULES,
    env: Mapping[str, str] = _NO_ENV,
    above: tuple[str, Mapping[str, str]] | None = None,
) -> Role:
    """The role of a process. `above`: title and environment of its parent, where that is in the same tree."""
    parent_title, parent_env = above or (None, _NO_ENV)
    inherited: Role | None = None
    for rule in rules:
        if not rule.pattern:
            told = tuple(env.get(name) for name in rule.variables)
            if None in told:
                continue
            fork = told == tuple(parent_env.get(name) for name in rule.variables)
            found = Role(rule.role, _number(told[0]), rule.ranklike, rule.name, None, rule.may_end)
        else:
            match = re.search(rule.pattern, title)
            if match is None:
                continue
            fork = title == parent_title
            found = _by_title(rule, match, env)
        if not (fork and found.ranklike):
            return found
        inherited = inherited or found.replace(ranklike=False, rule=f"{rule.name}, inherited", may_end=False)
    return inherited or Role("process")


def name_of(title: str, limit: int = 60) -> str:
    """What to call a process in a sentence: a title of its own as it is, of a command line program and script."""
    words = title.split()
    if not words or "::" in words[0] or words[0].endswith(":"):
        return clip(title, limit)
    program = words[0].rpartition("/")[2] or words[0]
    shown = [program]
    if re.fullmatch(r"python[\d.]*|pypy[\d.]*|(?:ba|da|z)?sh|perl|ruby|node", program):
        rest = words[1:]
        while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
            rest = rest[2 if rest[0] in ("-X", "-W") else 1 :]
        if rest and rest[0] in ("-m", "-c"):
            shown += rest[:2] if rest[0] == "-m" else [" ".join(rest)]
        elif rest:
            shown.append(rest[0].rpartition("/")[2] or rest[0])
    elif not title.startswith("/"):
        return clip(title, limit)  # most likely a title, in words
    return clip(" ".join(shown), limit)


def _by_title(rule: Rule, match: re.Match[str], env: Mapping[str, str]) -> Role:
    groups = match.groupdict()
    role = _worded(groups.get("role") or rule.role)
    index, group = _number(groups.get("index")), None
    if groups.get("at"):
        index, group = _placed(groups["at"])
    elif "index" not in groups and "at" not in groups:
        first = next((n for n in range(1, match.re.groups + 1) if n != match.re.groupindex.get("role")), None)
        index = _number(match[first]) if first is not None else None
    if index is None and rule.variables:
        index = _number(env.get(rule.variables[0]))
    return Role(role, index, rule.ranklike, rule.name, group, rule.may_end)


def _worded(role: str) -> str:
    """`sglang::scheduler_` → `scheduler`; `ATOM::` → `ATOM`; `ray::IDLE` stays, as everybody calls it."""
    if role.startswith("ray::"):
        return role
    before, _, after = role.rpartition("::")
    return (after or before).strip("_:") or role


def _placed(places: str) -> tuple[int | None, str | None]:
    """Index and the other places of `_DP0_PP1_TP3`: 3 and `DP0_PP1`."""
    told = [(axis, int(number)) for axis, number in re.findall(r"((?:ATTN_|MOE_)?[A-Z]*)(\d{1,9})", places)]
    axes = [axis for axis, _ in told]
    chosen = next((axis for axis in _AXES if axis in axes), axes[0] if axes else None)
    if chosen is None:
        return None, None
    others = "_".join(f"{axis}{number}" for axis, number in told if axis not in (chosen, "EP"))
    return next(number for axis, number in told if axis == chosen), others or None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) <= 9 else None
