"""Several machines, from options and variables to the job: which node this is, where node 0 is met, what is told and refused.

Nothing is started; the only name that is looked up is `localhost`.
"""

import json
import socket
import sys

import pytest

from rankguard.cli import nodes as several
from rankguard.cli import torchrun
from rankguard.cli.arguments import parse
from rankguard.cli.front.progress import Progress
from rankguard.cli.plan import plan
from rankguard.cli.values import host_list
from rankguard.errors import UsageError
from rankguard.jobspec import JobSpec
from rankguard.launchers.environment import rank_environment
from rankguard.report.redact import for_telling

AWAY = "192.0.2.7"
"""Of nobody (RFC 5737)."""
HERE = "127.0.0.1"
SCHEDULERS = (*several.NUMBERS, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_JOB_ID", "SLURM_STEP_ID",
              "LWS_LEADER_ADDRESS", "RAY_ADDRESS", "RANKGUARD_TOKEN")  # fmt: skip


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """`planned("--nnodes 2 …", VARIABLE=…)` → (spec, lines). As if Ray were installed."""
    monkeypatch.setattr("rankguard.cli.nodes.ray_is_missing", lambda: False)
    for name in SCHEDULERS:
        monkeypatch.delenv(name, raising=False)

    def one(words: str, **env: str) -> tuple[JobSpec, list[str]]:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        all_words = ["--run-dir", str(tmp_path / "run"), *words.split(), "/bin/true"]
        spec, said = plan(parse(all_words, dict(env)))
        return spec, [line if isinstance(line, str) else line[0] for line in said]

    return one


@pytest.fixture
def refused(planned):
    def one(words: str, **env: str) -> tuple[str, str | None]:
        with pytest.raises(UsageError) as error:
            planned(words, **env)
        return error.value.statement, error.value.hint

    return one


# ── torchrun's habit ─────────────────────────────────────────────────────────────────────────────────────────────


def test_node_0_is_the_coordinator_of_all_ranks(planned):
    spec, said = planned(f"--nnodes 4 -n 2 --node-rank 0 --rdzv-endpoint {AWAY}:1234 --rdzv-id job")

    assert said == []
    assert (spec.nprocs, spec.share, spec.console, spec.stdin_rank) == (8, None, "prefix", None)
    assert (spec.master_addr, spec.master_port, spec.elastic_id) == (AWAY, None, "job")
    assert spec.nodes is not None
    assert (spec.nodes.count, spec.nodes.nproc, spec.nodes.host, spec.nodes.port) == (4, 2, "", 1234)
    assert spec.nodes.on == "join"
    assert spec.nodes.agent == (sys.executable, "-P", "-m", "rankguard", "agent")
    assert (spec.nodes.join_timeout, spec.nodes.node_timeout, spec.nodes.orphan_timeout) == (600.0, 5.0, 10.0)


def test_another_node_joins_it_with_ranks_of_its_own(planned, tmp_path):
    spec, said = planned(f"--nnodes 4:4 -n 2 --node-rank 3 --rdzv-endpoint {AWAY}:1234 --orphan-timeout 7.5")

    assert said == []
    assert (spec.nprocs, spec.nodes, spec.console, spec.stdin_rank) == (2, None, "none", None)
    assert spec.share is not None
    assert (spec.share.host, spec.share.port, spec.share.count, spec.share.node) == (AWAY, 1234, 4, 3)
    assert (spec.share.join_timeout, spec.share.orphan_timeout, spec.share.known) == (600.0, 7.5, False)
    assert spec.run_dir == str(tmp_path / "run")


def test_both_ends_know_the_same_and_a_job_of_another_name_does_not(planned):
    def known(words: str, node: int, **env: str) -> str:
        spec, _said = planned(f"--nnodes 2 --rdzv-endpoint {AWAY} --node-rank {node} {words}", **env)
        return (spec.nodes or spec.share).token

    assert known("", 0) == known("", 1)
    assert known("--rdzv-id a", 0) == known("--rdzv-id a", 1) != known("--rdzv-id b", 1)
    secret = known("", 0, RANKGUARD_TOKEN="s3cret")
    assert secret == known("", 1, RANKGUARD_TOKEN="s3cret") != known("", 1, RANKGUARD_TOKEN="")
    assert "s3cret" not in secret


def test_the_token_is_in_nothing_that_is_told(planned):
    for node in (0, 1):
        spec, _said = planned(f"--nnodes 2 --rdzv-endpoint {AWAY} --node-rank {node}")
        told = for_telling(spec)
        assert (spec.nodes or spec.share).token
        assert (told.nodes or told.share).token == ""


def test_ranks_do_not_inherit_it(planned):
    spec, _said = planned(f"--nnodes 2 --rdzv-endpoint {AWAY} --node-rank 1", RANKGUARD_TOKEN="s3cret")
    assert spec.env["RANKGUARD_TOKEN"] == "s3cret"  # known, so that it is hidden wherever it may stand
    began = spec.replace(share=spec.share.replace(first_rank=1, world_size=2))
    env = rank_environment(began, 0, 1, None, None)
    assert "RANKGUARD_TOKEN" not in env
    assert (env["RANK"], env["LOCAL_RANK"], env["WORLD_SIZE"], env["GROUP_RANK"]) == ("1", "0", "2", "1")


@pytest.mark.parametrize(
    ("words", "met", "addr", "port"),
    [
        (f"--rdzv-endpoint {AWAY}", (AWAY, 29500), AWAY, None),
        (f"--rdzv-endpoint {AWAY}:1 --rdzv-backend c10d", (AWAY, 1), AWAY, None),
        (f"--rdzv-endpoint {AWAY}:1 --rdzv-backend static", (AWAY, 1), AWAY, None),
        ("--rdzv-endpoint [2001:db8::1]:1", ("2001:db8::1", 1), "2001:db8::1", None),
        (f"--master-addr {AWAY}", (AWAY, 29500), AWAY, None),
        (f"--master-addr {AWAY} --master-port 1", (AWAY, 1), AWAY, None),
        (f"--rdzv-endpoint {AWAY}:1 --master-addr ib0 --master-port 2", (AWAY, 1), "ib0", 2),
        (f"--rdzv-endpoint {AWAY}:1 --local-addr ib0", (AWAY, 1), "ib0", None),
    ],
)
def test_where_node_0_is_met_and_what_ranks_are_told_of_it(planned, words, met, addr, port):
    joins, said = planned(f"--nnodes 2 --node-rank 1 {words}")
    meets, said_there = planned(f"--nnodes 2 --node-rank 0 {words}")

    assert (joins.share.host, joins.share.port) == met
    assert (meets.nodes.host, meets.nodes.port) == ("", met[1])
    assert (meets.master_addr, meets.master_port) == (addr, port)
    assert said == said_there == []


def test_torchruns_variables(planned):
    """As Kubeflow's trainer sets them."""
    spec, said = planned("", PET_NNODES="2", PET_NPROC_PER_NODE="3", PET_NODE_RANK="1", PET_MASTER_ADDR=AWAY,
                         PET_MASTER_PORT="1234")  # fmt: skip

    assert said == []
    assert spec.nprocs == 3
    assert (spec.share.host, spec.share.port, spec.share.count, spec.share.node) == (AWAY, 1234, 2, 1)


def test_what_the_loopback_can_reach_is_all_that_listens(planned):
    for host in ("localhost", "127.0.0.3", "[::1]"):
        spec, _said = planned(f"--nnodes 2 --node-rank 0 --rdzv-endpoint {host}:1")
        assert spec.nodes.host == host.strip("[]")


# ── Which node this is ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("env", "node"),
    [
        ({"SLURM_NODEID": "2"}, 2),
        ({"LWS_WORKER_INDEX": "3"}, 3),
        ({"JOB_COMPLETION_INDEX": "1"}, 1),
        ({"GROUP_RANK": "1"}, 1),
        ({"GROUP_RANK": "1", "JOB_COMPLETION_INDEX": "2", "LWS_WORKER_INDEX": "3", "SLURM_NODEID": "0"}, 0),
        ({"GROUP_RANK": "1", "JOB_COMPLETION_INDEX": ""}, 1),
        ({}, None),
    ],
)
def test_a_node_finds_its_number(planned, env, node):
    for words in ("", "--node-rank auto"):
        spec, _said = planned(f"--nnodes 4 --rdzv-endpoint {AWAY} {words}", **env)
        assert (0 if spec.nodes is not None else spec.share.node) == node


def test_a_number_that_is_given_goes_before(planned):
    spec, _said = planned(f"--nnodes 4 --rdzv-endpoint {AWAY} --node-rank 2", SLURM_NODEID="1")
    assert spec.share.node == 2
    spec, _said = planned(f"--nnodes 4 --rdzv-endpoint {AWAY}", PET_NODE_RANK="2", SLURM_NODEID="1")
    assert spec.share.node == 2


@pytest.mark.parametrize("host", [HERE, "localhost", "127.9.9.9", socket.gethostname()])
def test_whoever_has_the_address_of_node_0_is_node_0(planned, host):
    spec, _said = planned(f"--nnodes 2 --rdzv-endpoint {host}:1")
    assert spec.nodes is not None


def test_the_number_of_a_scheduler_goes_before_the_address(planned):
    spec, _said = planned(f"--nnodes 2 --rdzv-endpoint {HERE}:1", SLURM_NODEID="1")
    assert spec.share.node == 1


def test_on_one_machine_no_scheduler_numbers_anything(planned):
    spec, said = planned("--nnodes 1", SLURM_NODEID="3", GROUP_RANK="1", LWS_LEADER_ADDRESS=AWAY, RAY_ADDRESS="auto")
    assert (spec.nodes, spec.share, spec.nprocs, said) == (None, None, 1, [])


# ── Schedulers that name node 0 ──────────────────────────────────────────────────────────────────────────────────


def test_slurm_names_node_0_and_a_port_that_no_other_step_has(planned):
    slurm = {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "gpu[03-05,9],login1"}
    spec, said = planned("--nnodes 4", **slurm, SLURM_NODEID="2", SLURM_JOB_NODELIST="other1")
    there, _said = planned("--nnodes 4", **slurm, SLURM_NODEID="0")

    assert said == []
    assert (spec.share.host, spec.share.node) == ("gpu03", 2)
    assert spec.share.port == there.nodes.port == 20000 + 4711 * 16 % 10000
    assert spec.share.token == there.nodes.token
    assert there.elastic_id == spec.elastic_id == "slurm-4711.0"
    another, _said = planned("--nnodes 4", **slurm | {"SLURM_STEP_ID": "1"}, SLURM_NODEID="2")
    assert (another.share.port, another.share.token) != (spec.share.port, spec.share.token)


def test_what_is_given_goes_before_slurm(planned):
    slurm = {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NODEID": "1"}
    assert planned("--nnodes 2", **slurm)[0].share.host == "n1"
    assert planned("--nnodes 2 --master-port 7", **slurm)[0].share.port == 7
    assert planned(f"--nnodes 2 --rdzv-endpoint {AWAY}", **slurm)[0].share.host == AWAY
    assert planned("--nnodes 2 --rdzv-id mine", **slurm)[0].elastic_id == "mine"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("node[01-04]", "node01"),
        ("node[7,9-10]-ib,x", "node7-ib"),
        ("r[0-1]n[08-15]", "r0n08"),
        ("", None),
        ("node[", None),
        ("no de", None),
    ],
)
def test_the_first_of_slurms_hosts(text, first):
    assert host_list(text) == first


def test_a_leader_worker_set_names_node_0(planned):
    lws = {"LWS_LEADER_ADDRESS": "engine-0.engine.default", "LWS_WORKER_INDEX": "1"}
    spec, said = planned("--nnodes 2", **lws)
    there, _said = planned("--nnodes 2", **lws | {"LWS_WORKER_INDEX": "0"})

    assert said == []
    assert (spec.share.host, spec.share.port, spec.share.node) == ("engine-0.engine.default", 29500, 1)
    assert (there.nodes.host, there.nodes.port) == ("", 29500)
    assert there.master_addr == "engine-0.engine.default"


# ── Ray ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_command_and_ray_places_the_nodes(planned):
    spec, said = planned("--on ray --nnodes 4 -n 8 --ray-address ray://head:10001 --resources GPU=8,CPU=1.5")

    assert said == []
    assert (spec.nprocs, spec.share, spec.stdin_rank, spec.master_addr) == (32, None, None, "")
    assert (spec.nodes.on, spec.nodes.count, spec.nodes.nproc, spec.nodes.host, spec.nodes.port) == ("ray", 4, 8, "", 0)
    assert spec.nodes.agent == (sys.executable, "-P", "-m", "rankguard.nodes.rayplace")
    assert spec.nodes.settings["ray_address"] == "ray://head:10001"
    assert json.loads(spec.nodes.settings["resources"]) == {"GPU": 8, "CPU": 1.5}
    assert spec.elastic_id == spec.run_id
    again, _said = planned("--on ray --nnodes 4 -n 8")
    assert (again.nodes.settings, again.nodes.token != spec.nodes.token) == ({}, True)


def test_ray_may_place_a_single_node(planned):
    spec, _said = planned("--on ray -n 2")
    assert (spec.nodes.count, spec.nprocs) == (1, 2)


@pytest.mark.parametrize(
    ("words", "on"),
    [
        ("--nnodes 2", "ray"),
        ("--nnodes 2 --on ray --rdzv-endpoint 10.0.0.1:7", "ray"),
        (f"--nnodes 2 --on local --rdzv-endpoint {HERE}", "join"),
        (f"--nnodes 2 --rdzv-endpoint {HERE}", "join"),
        (f"--nnodes 2 --master-addr {HERE}", "join"),
        ("--nnodes 1", None),
    ],
)
def test_a_cluster_that_is_there_is_used_unless_node_0_is_named(words, on):
    assert torchrun.placed(parse([*words.split(), "x"], {}), {"RAY_ADDRESS": "auto"}) == on


def test_a_cluster_that_is_there(planned):
    spec, _said = planned("--nnodes 2", RAY_ADDRESS="10.0.0.1:6379")
    assert spec.nodes.settings == {"ray_address": "10.0.0.1:6379"}


@pytest.mark.parametrize(("words", "env"), [("--on ray", {}), ("--nnodes 2", {"RAY_ADDRESS": "auto"})])
def test_without_ray_nothing_is_started(refused, monkeypatch, words, env):
    monkeypatch.setattr("rankguard.cli.nodes.ray_is_missing", lambda: True)
    what = "RAY_ADDRESS" if env else "--on ray"
    statement = f"`{what}`: expected the package `ray`, which is not installed"
    assert refused(words, **env) == (statement, "pip install 'rankguard[ray]'")


# ── What is told, and what is refused ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--on ray --node-rank 1 --rdzv-backend static",
         ["`--node-rank 1` has no effect: Ray places the nodes", "`--rdzv-backend static` has no effect: Ray places the nodes"]),
        (f"--nnodes 2 --node-rank 1 --rdzv-endpoint {AWAY} --ray-address a --resources GPU=1",
         ["`--ray-address a` has no effect: no node is placed by Ray",
          "`--resources GPU=1` has no effect: no node is placed by Ray"]),
        (f"--nnodes 2 --node-rank 1 --rdzv-endpoint {AWAY} --rdzv-conf timeout=5,token=secret,is_host=1",
         ["`--rdzv-conf`: `token` has no effect; only `join_timeout` and `timeout` have"]),
        ("--join-timeout 5 --node-timeout 5 --orphan-timeout 5 --resources GPU=1",
         [f"`{option}` has no effect: on one machine there is nobody to meet"
          for option in ("--join-timeout 5", "--node-timeout 5", "--orphan-timeout 5", "--resources GPU=1")]),
        (f"--nnodes 2 -n 2 --node-rank 1 --rdzv-endpoint {AWAY} -r 3:3 --local-ranks-filter 2,0",
         ["`--redirects 3:3`: there is no rank 3", "`--local-ranks-filter 2,0`: there is no rank 2"]),
    ],
)  # fmt: skip
def test_what_does_nothing_is_said(planned, words, expected):
    assert planned(words)[1] == expected


@pytest.mark.parametrize(
    ("words", "seconds"),
    [("timeout=900", 900.0), ("join_timeout=30,timeout=900", 30.0), ("", 600.0), ("last_call_timeout=3", 600.0)],
)
def test_torchruns_time_for_joining(planned, words, seconds):
    endpoint = f"--nnodes 2 --node-rank 1 --rdzv-endpoint {AWAY}"
    conf = f"--rdzv-conf={words}"
    assert planned(f"{endpoint} {conf}")[0].share.join_timeout == seconds
    assert planned(f"{endpoint} {conf} --join-timeout 7")[0].share.join_timeout == 7.0


@pytest.mark.parametrize(
    ("words", "hidden"),
    [("", ()), ("-r 3", (3, 3, 3, 3)), ("-r 1:3", (0, 3, 0, 3)), ("--local-ranks-filter 0", (0, 3, 0, 3))],
)
def test_redirects_and_filters_are_of_local_ranks(planned, words, hidden):
    endpoint = f"--nnodes 2 -n 2 --rdzv-endpoint {AWAY}"
    assert planned(f"{endpoint} --node-rank 0 {words}")[0].hidden == hidden
    assert planned(f"{endpoint} --node-rank 1 {words}")[0].hidden == hidden[:2]


@pytest.mark.parametrize(
    ("words", "env", "statement", "hint"),
    [
        ("--nnodes 2:4", {}, "`--nnodes 2:4`: expected one number; a job keeps the size that it was asked for", "--nnodes 4"),
        ("--nnodes 4 -n 2", {}, "`--nnodes 4`: expected --rdzv-endpoint too, the address of node 0, on each node",
         "rankguard run --nnodes 4 --rdzv-endpoint HOST:29500 -n 2 /bin/true"),
        ("", {"PET_NNODES": "4"}, "`PET_NNODES=4`: expected --rdzv-endpoint too, the address of node 0, on each node",
         "rankguard run --nnodes 4 --rdzv-endpoint HOST:29500 /bin/true"),
        ("--nnodes 4 --on local", {"RAY_ADDRESS": "auto"},
         "`--nnodes 4`: expected --rdzv-endpoint too, the address of node 0, on each node",
         "rankguard run --nnodes 4 --rdzv-endpoint HOST:29500 /bin/true"),
        (f"--nnodes 4 --node-rank 4 --rdzv-endpoint {AWAY}", {}, "`--node-rank 4`: expected 0 to 3, as there are 4 nodes",
         "--nnodes 5"),
        (f"--nnodes 2 --rdzv-endpoint {AWAY}", {"SLURM_NODEID": "2"},
         "`SLURM_NODEID=2`: expected 0 to 1, as there are 2 nodes", "--nnodes 3"),
        (f"--nnodes 2 --standalone --rdzv-endpoint {AWAY}", {}, "`--standalone`: expected one machine, not `--nnodes 2`",
         "leave out one of the two"),
        ("--on ray --standalone", {}, "`--standalone`: expected one machine, not `--on ray`", "leave out one of the two"),
        (f"--nnodes 2 --rdzv-backend etcd --rdzv-endpoint {AWAY}", {},
         "`--rdzv-backend etcd`: expected static or c10d; node 0 is met at its address", "--rdzv-backend c10d"),
        (f"--nnodes 2 --stdin 0 --rdzv-endpoint {AWAY}", {},
         "`--stdin 0`: expected one machine; no rank reads stdin with `--nnodes 2`", "< FILE in the program"),
        ("--on ray --debug 0", {}, "`--debug 0`: expected one machine; no rank has the terminal with `--on ray`",
         "attach with debugpy: docs/debug.md"),
        ("--on ray -n gpu", {}, "`-n gpu`: expected a number with `--on ray`; what its nodes have is not known here", "-n 8"),
        ("--nnodes 2 --rdzv-endpoint 0.0.0.0", {},
         "`--rdzv-endpoint 0.0.0.0`: expected the address by which other nodes reach node 0",
         "rankguard run --nnodes 2 --rdzv-endpoint HOST:29500 /bin/true"),
        ("--nnodes 2 --master-addr ::", {},
         "`--master-addr ::`: expected the address by which other nodes reach node 0",
         "rankguard run --nnodes 2 --rdzv-endpoint HOST:29500 /bin/true"),
        (f"--nnodes 2 --rdzv-endpoint {AWAY} --rdzv-conf timeout=-1", {},
         "`--rdzv-conf`: expected a number of seconds for `timeout`", "--join-timeout 600"),
    ],
)  # fmt: skip
def test_what_is_refused(refused, words, env, statement, hint):
    assert refused(words, **env) == (statement, hint)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("GPU=8", (("GPU", 8),)),
        ("GPU=8, CPU=0.5 ,my-kind=1", (("GPU", 8), ("CPU", 0.5), ("my-kind", 1))),
        ('{"GPU": 8, "CPU": 0}', (("GPU", 8), ("CPU", 0))),
        ("", ()),
    ],
)
def test_resources(text, value):
    assert parse(["--resources", text, "x"], {}).resources == value


@pytest.mark.parametrize(
    "text", ["GPU", "GPU=", "GPU=x", "=1", "GPU=-1", "GPU=nan", "[1]", "{", '{"GPU": true}', '{"a": [1]}']
)
def test_resources_that_are_none(text):
    with pytest.raises(UsageError, match="a JSON object of numbers"):
        parse(["--resources", text, "x"], {})


# ── What the front says ──────────────────────────────────────────────────────────────────────────────────────────


def test_who_has_not_joined_is_told_and_readiness_by_node_0_alone():
    joining = {"is": "told", "what": "joining", "text": "2 of 4 nodes have joined; missing 1, 3"}
    for part in (False, True):
        progress = Progress(2, 0.0, quiet=False, part=part)
        assert progress.told(joining, 10.0) == joining["text"]
        progress.ready(0, 11.0)
        assert (progress.due_at() is None) is part
        progress.ready(1, 12.0)
        assert (progress.told({"is": "told", "what": "all-ready"}, 12.0) is None) is part
    assert Progress(2, 0.0, quiet=True).told(joining, 10.0) is None
