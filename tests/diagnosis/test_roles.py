"""What the titles of real engines and of everything around them are taken for."""

import pytest

from rankguard.diagnosis.roles import RULES, VARIABLES, Role, name_of, role_of, user_rule

SPAWN = "/usr/bin/python3 -c from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5, pipe_handle=7)"


@pytest.mark.parametrize(
    ("title", "role", "index", "group"),
    [
        ("sglang::scheduler", "scheduler", None, None),
        ("sglang::scheduler_TP5", "scheduler", 5, None),
        ("sglang::scheduler_0", "scheduler", 0, None),
        ("sglang::scheduler_DP0_TP5_PP0_EP1", "scheduler", 5, "DP0_PP0"),
        ("sglang::scheduler_PP1_TP3", "scheduler", 3, "PP1"),
        ("sglang::scheduler_NP1", "scheduler", 1, None),
        ("sglang::scheduler::my-model", "scheduler", None, None),
        ("sglang::gpu_worker_TP0_PP1", "gpu_worker", 0, "PP1"),
        ("sglang::semi_pd_scheduler_DECODE_DP0_TP1", "semi_pd_scheduler_DECODE", 1, "DP0"),
        ("sglang::detokenizer", "detokenizer", None, None),
        ("sglang::detokenizer_router", "detokenizer_router", None, None),
        ("sglang::scheduler_PP0_ATTN_CP1_MOE_DP0_TP3", "scheduler", 3, "PP0_ATTN_CP1_MOE_DP0"),
        ("sglang::data_parallel_controller", "data_parallel_controller", None, None),
        ("sglang::router", "router", None, None),
        ("sglang-jax::scheduler_TP1", "scheduler", 1, None),
        ("sgl_diffusion::scheduler_TP1", "scheduler", 1, None),
        ("VLLM::Worker", "Worker", None, None),
        ("VLLM::Worker_TP1", "Worker", 1, None),
        ("VLLM::Worker_TP1_DP0", "Worker", 1, "DP0"),
        ("VLLM::Worker_DP0_PP0_TP1_EP3", "Worker", 1, "DP0_PP0"),
        ("VLLM::EngineCore", "EngineCore", None, None),
        ("VLLM::EngineCore_DP1", "EngineCore", 1, None),
        ("VLLM::EngineCoreProc_0", "EngineCoreProc", 0, None),
        ("VLLM::APIServer_0", "APIServer", 0, None),
        ("VLLM::DPCoordinator", "DPCoordinator", None, None),
        ("mine-7::Worker_PP1", "Worker", 1, None),
        ("VLLM::DiffusionWorker-2", "DiffusionWorker", 2, None),
        ("ATOM::TP3", "ATOM", 3, None),
        ("ATOM::DP1TP0", "ATOM", 0, "DP1"),
        ("python -m dynamo.vllm --model x", "vllm", None, None),
        ("/opt/bin/python3 -m dynamo.frontend", "frontend", None, None),
    ],
)
def test_engines(title, role, index, group):
    told = role_of(title)

    assert (told.role, told.index, told.group) == (role, index, group)
    assert told.ranklike
    assert not told.may_end


@pytest.mark.parametrize(
    ("title", "role"),
    [
        ("ray::IDLE", "ray::IDLE"),
        ("ray::Counter.increment", "ray::Counter.increment"),
        ("ray::RayWorkerWrapper.execute_method", "ray::RayWorkerWrapper.execute_method"),
        ("/v/ray/core/src/ray/raylet/raylet --raylet_socket_name=/tmp/ray", "ray"),
        ("/v/ray/core/src/ray/gcs/gcs_server --log_dir=/tmp", "ray"),
        ("dask worker [tcp://127.0.0.1:43291]", "worker"),
        ("dask scheduler [not started]", "scheduler"),
        ("/v/bin/python /v/bin/dask-worker tcp://x", "process"),
        ("/v/bin/python /v/ray/_private/workers/default_worker.py --node-ip-address=1", "ray"),
        ("/v/bin/python -u /v/ray/dashboard/dashboard.py --host=1", "ray"),
        ("gunicorn: worker [app]", "worker"),
        ("gunicorn: master [app]", "master"),
        ("[ready] gunicorn: worker [app]", "worker"),
        ("[celeryd: w1@host:MainProcess] -active- (worker)", "celery"),
        ("/v/bin/python3 /v/bin/uvicorn app:app --workers 4", "uvicorn"),
        (SPAWN, "spawn"),
        ("/usr/bin/python3 -c from multiprocessing.resource_tracker import main;main(5)", "resource_tracker"),
        ("/usr/bin/python3 -c from multiprocessing.forkserver import main; main(3, 4, ...)", "forkserver"),
        ("/usr/lib/gcc/x86_64-linux-gnu/12/cc1plus -quiet x.cc", "cc1plus"),
        ("/usr/local/cuda/bin/nvcc -c x.cu", "nvcc"),
        ("ptxas -arch=sm_90 x.ptx", "ptxas"),
        ("/v/bin/python /v/torch/_inductor/compile_worker/__main__.py --workers=8", "compiler"),
        ("git rev-parse HEAD", "git"),
        ("/usr/bin/nvidia-smi --query-gpu=uuid", "nvidia-smi"),
        ("mpirun -n 2 python job.py", "mpirun"),
        ("orted -mca ess env", "orted"),
        ("/v/bin/python3 /v/bin/torchrun --nproc-per-node 2 train.py", "torchrun"),
        ("sglang::tokenizer_worker:4711", "tokenizer_worker"),
        ("sglang::http_server/multi_tokenizer_manager:100529", "http_server/multi_tokenizer_manager"),
        ("python train.py", "process"),
        ("", "process"),
        ("nginx: worker process", "process"),
        ("postgres: worker TP1", "process"),
        ("the scheduler_TP1 of something", "process"),
    ],
)
def test_whom_an_engine_replaces_or_need_not_have(title, role):
    told = role_of(title)

    assert told.role == role
    assert not told.ranklike


@pytest.mark.parametrize(
    ("env", "rule", "index"),
    [
        ({"RANK": "3", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x"}, "torchrun", 3),
        ({"OMPI_COMM_WORLD_RANK": "2", "PMIX_RANK": "2"}, "openmpi", 2),
        ({"PMIX_RANK": "5"}, "pmix", 5),
        ({"PMI_RANK": "0"}, "pmi", 0),
        ({"SLURM_PROCID": "7", "SLURM_STEP_ID": "0"}, "slurm", 7),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "4321"}, "lightning", 1),
        ({"DMLC_TASK_ID": "2", "DMLC_TRACKER_URI": "10.0.0.1"}, "dmlc", 2),
        ({"PMI_RANK": "what"}, "pmi", None),
    ],
)
def test_ranks_by_their_environment(env, rule, index):
    assert role_of("python train.py", env=env) == Role("rank", index, True, rule, None, True)
    assert set(env) <= set(VARIABLES)


@pytest.mark.parametrize("env", [{"RANK": "3"}, {"RANK": "3", "LOCAL_RANK": "1"}, {"SLURM_PROCID": "0"}, {}])
def test_half_an_environment_is_none(env):
    assert role_of("python train.py", env=env) == Role("process")


def test_only_the_topmost_of_those_with_one_rank_is_it():
    env = {"OMPI_COMM_WORLD_RANK": "1"}

    shell = role_of("bash -c python job.py", env=env, above=("mpirun -n 2 bash", {}))
    program = role_of("python job.py", env=env, above=("bash -c python job.py", env))
    git = role_of("git status", env=env, above=("python job.py", env))

    assert shell == Role("rank", 1, True, "openmpi", None, True)
    assert program == Role("rank", 1, False, "openmpi, inherited")
    assert not git.ranklike


def test_ranks_of_torchrun_below_a_rank_of_mpi():
    mpi = {"OMPI_COMM_WORLD_RANK": "1"}
    env = {**mpi, "RANK": "0", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "none"}

    assert role_of("torchrun x.py", env=mpi, above=("orted", {})).role == "torchrun"
    assert role_of("python x.py", env=env, above=("torchrun x.py", mpi)) == Role(
        "rank", 0, True, "torchrun", None, True
    )


def test_a_fork_of_a_rank_has_its_title_and_is_none():
    title = "sglang::scheduler_TP1"

    assert role_of(title, above=("python -m sglang.launch_server", {})).ranklike
    assert role_of(title, above=(title, {})) == Role("scheduler", 1, False, "sglang, inherited")
    assert role_of("VLLM::Worker_TP0", above=("VLLM::EngineCore", {})).ranklike


def test_a_shard_has_its_index_from_its_environment():
    title = "/opt/bin/python /opt/bin/text-generation-server serve bigscience/bloom --uds-path /tmp/x"

    assert role_of(title, env={"RANK": "2"}) == Role("shard", 2, True, "tgi")
    assert role_of(title) == Role("shard", None, True, "tgi")


def test_rules_of_the_user_come_first():
    rules = (user_rule(r"gunicorn: (?P<role>worker)"), user_rule(r"serve\.py .*--shard[= ](\d+)"), *RULES)

    assert role_of("gunicorn: worker [app]", rules) == Role(
        "worker", None, True, r"--rank-pattern gunicorn: (?P<role>worker)"
    )
    told = role_of("python serve.py --shard 12", rules)
    assert (told.role, told.index, told.ranklike) == ("rank", 12, True)
    assert not role_of("gunicorn: master [app]", rules).ranklike


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("worker(", "expected a regular expression: missing ), unterminated subpattern at position 6"),
        ("*", "expected a regular expression: nothing to repeat at position 0"),
        ("x*", "expected a pattern that tells ranks apart from others: this one matches everything"),
        ("", "expected a pattern that tells ranks apart from others: this one matches everything"),
    ],
)
def test_what_is_wrong_with_a_pattern(pattern, said):
    with pytest.raises(ValueError) as raised:
        user_rule(pattern)

    assert str(raised.value) == said


def test_every_rule_says_why_and_has_a_name_of_its_own():
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert [rule.name for rule in RULES if not rule.because or not (rule.pattern or rule.variables)] == []


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("sglang::scheduler_TP5", "sglang::scheduler_TP5"),
        ("gunicorn: worker [app]", "gunicorn: worker [app]"),
        ("dask worker [tcp://127.0.0.1:43291]", "dask worker [tcp://127.0.0.1:43291]"),
        ("/usr/bin/python3 -u -X dev /home/u/train.py --lr 3", "python3 train.py"),
        ("/usr/bin/python3 -m http.server 80", "python3 -m http.server"),
        ("/usr/bin/nvidia-smi -L", "nvidia-smi"),
        ("/bin/bash /opt/start.sh", "bash start.sh"),
        ("", ""),
        ("x" * 100, "x" * 59 + "…"),
    ],
)
def test_names(title, name):
    assert name_of(title) == name
