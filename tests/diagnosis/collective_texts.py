"""What ranks print when a collective times out: the shapes are of public issues (named beside each) and torch's sources,
the numbers ours. Those marked R were recorded here: torch 2.13 with gloo, CPython 3.11.
"""

_FRAMES = (
    "Exception raised from checkTimeout at ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:607 (most recent call first):",
    "frame #0: c10::Error::Error(c10::SourceLocation, std::string) + 0x96 (0x7f in /x/libc10.so)",
    "frame #1: c10d::ProcessGroupNCCL::WorkNCCL::checkTimeout(std::optional<std::chrono::duration<long> >) + 0x1d2 (0x7f)",
    "frame #2: c10d::ProcessGroupNCCL::watchdogHandler() + 0x233 (0x7f in /x/libtorch_cuda.so)",
)


def watchdog(rank, seq, op="ALLREDUCE", line=607):
    """hiyouga/LlamaFactory#6269, #7396 (torch 2.4, 2.5), XPixelGroup/BasicSR#737 (2.6)."""
    return (
        f"[rank{rank}]:[E1206 18:44:12.715298746 ProcessGroupNCCL.cpp:{line}] [Rank {rank}] Watchdog caught collective "
        f"operation timeout: WorkNCCL(SeqNum={seq}, OpType={op}, NumelIn=544997376, NumelOut=68124672, "
        "Timeout(ms)=600000) ran for 600061 milliseconds before timing out."
    )


def detected(rank, seq, enqueued, completed, group="PG 1"):
    """hiyouga/LlamaFactory#6269; with `group` as in XPixelGroup/BasicSR#737: `PG ID 0 PG GUID 0(default_pg)`."""
    return (
        f"[rank{rank}]:[E1206 18:44:12.715588844 ProcessGroupNCCL.cpp:1664] [{group} Rank {rank}] Exception (either an "
        f"error or timeout) detected by watchdog at work: {seq}, last enqueued NCCL work: {enqueued}, "
        f"last completed NCCL work: {completed}."
    )


def failure(rank, seq, enqueued, completed, group="PG ID 0 PG GUID 0(default_pg)", place=None):
    """NVIDIA/nccl#1730, snowflakedb/ArcticTraining#219 (torch 2.7)."""
    return (
        f"[rank{rank}]:[E603 17:48:01.005538748 ProcessGroupNCCL.cpp:2268] [{group} Rank {rank if place is None else place}]"
        f"  failure detected by watchdog at work sequence id: {seq} PG status: last enqueued work: {enqueued}, "
        f"last completed work: {completed}"
    )


def dump_signal(rank, by, enqueued, completed):
    """KaiqiangXiong/CL-MVSNet#14, hiyouga/LlamaFactory#8261 (torch 2.5 to 2.7): `by` is None for its own time-out."""
    whom = "this local rank" if by is None else f" rank {by}"
    return (
        f"[rank{rank}]:[E703 15:37:17.178360488 ProcessGroupNCCL.cpp:1987] [PG ID 0 PG GUID 0(default_pg) Rank {rank}] "
        f"Received a dump signal due to a collective timeout from {whom} and we will try our best to dump the debug info. "
        f"Last enqueued NCCL work: {enqueued}, last completed NCCL work: {completed}.This is most likely caused by "
        "incorrect usages of collectives, e.g., wrong sizes used across ranks, the order of collectives is not same for "
        "all ranks or the scheduled collective, for some reason, didn't run."
    )


def going_down(rank):
    """Every one of them: it is then ended by SIGABRT."""
    text = f"[PG 1 Rank {rank}] Process group watchdog thread terminated with exception: {watchdog(rank, 7)[50:]}"
    return (
        f"[rank{rank}]:[E1206 18:44:12 ProcessGroupNCCL.cpp:621] [Rank {rank}] Some NCCL operations have failed or timed out.",
        f"[rank{rank}]:[E1206 18:44:12 ProcessGroupNCCL.cpp:627] [Rank {rank}] To avoid data inconsistency, we are taking the entire process down.",
        f"[rank{rank}]:[E1206 18:44:12 ProcessGroupNCCL.cpp:1834] {text}",
        *_FRAMES,
        "terminate called after throwing an instance of 'c10::DistBackendError'",
        f"  what():  {text}",
        *_FRAMES,
    )


DESYNC = (
    # pytorch/pytorch#152623, with TORCH_NCCL_DESYNC_DEBUG=1
    (
        "[rank0]:[E515 18:36:47.341808597 ProcessGroupNCCL.cpp:632] [Rank 0] Watchdog caught collective operation timeout: "
        "WorkNCCL(SeqNum=241, OpType=ALLREDUCE, NumelIn=6, NumelOut=6, Timeout(ms)=600000) ran for 600086 milliseconds before timing out."
    ),
    "[rank0]:[E515 18:36:47.343377708 ProcessGroupNCCL.cpp:1937] Rank 0",
    "\t - [0] Timeout at collective: ALLREDUCE, #315",
    "\t - To our best knowledge, the lagging/dead/mismatched ranks that caused the desync are:",
    "\t     [7] finished collective #182, but didn't join collective #183 (count from 1)",
    "\t - Snapshot of ranks' latest states:",
    "\t   #182 finished ranks:",
    "\t     [7] finished ALLREDUCE",
    "\t   #315 started ranks:",
    "\t     [0, 1, 2] started ALLREDUCE",
    "\t   #317 started ranks:",
    "\t     [3, 4, 5, 6] started _ALLGATHER_BASE",
)
NEVER_JOINED = (
    # torch/csrc/distributed/c10d/TraceUtils.h (analyzeMissingRanks)
    watchdog(0, 5),
    "\t - To our best knowledge, ranks [2] are the lagging ranks that caused this timeout. They never joined any collectives",
)
ALL_JOINED = (
    # torch 2.13 on 8 GPUs: nobody diverged
    watchdog(0, 18, "_REDUCE_SCATTER_BASE"),
    "\t   - [0,1,2,3,4,5,6,7] joined but didn't finish collective #39 (count from 1)",
)
OLD = (
    # pytorch/pytorch#118369 (torch 2.1); before 2.0 there was no SeqNum
    (
        "[E ProcessGroupNCCL.cpp:458] [Rank 7] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=64088, "
        "OpType=ALLREDUCE, Timeout(ms)=1800000) ran for 25625251 milliseconds before timing out."
    ),
)
HEARTBEAT = (
    # om-ai-lab/VLM-R1#257, snowflakedb/ArcticTraining#219
    (
        "[rank6]:[E429 13:55:49.384372190 ProcessGroupNCCL.cpp:1743] [PG ID 0 PG GUID 0(default_pg) Rank 6] "
        "ProcessGroupNCCL's watchdog got stuck for 480 seconds without making progress in monitoring enqueued collectives."
    ),
)
JAX = (
    # ayaka14732/llama-2-jax#20
    "jaxlib.xla_extension.XlaRuntimeError: DEADLINE_EXCEEDED: Barrier timed out. Barrier_id: PjRT_Client_Connect. Timed out task names:",
    "/job:jax_worker/replica:0/task:1",
    "/job:jax_worker/replica:0/task:6",
)
NCCL_ID = (
    # torch ProcessGroupNCCL.cpp, broadcastUniqueNCCLID
    (
        "torch.distributed.DistBackendError: [3] is setting up NCCL communicator and retrieving ncclUniqueId from [0] via "
        "c10d key-value store by key '0', but store->get('0') got error: wait timeout after 600000ms, keys: /default_pg/0//cuda//0"
    ),
)

GLOO = "[/x/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 3000ms for recv operation to complete"  # R
LOST = "[/x/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:9909. This is typically caused by a remote worker crashing."  # R
CLIENTS = "Timed out after 4 seconds waiting for clients. 3/4 clients joined."  # R
STORE = "wait timeout after 3000ms, keys: /default_pg/0//cpu//0/{}"  # R
BARRIER = f"[Rank 0]: Rank 3 failed to pass monitoredBarrier in 3000 ms\n Original exception: \n{GLOO}"  # R
BARRIER_ALL = "[Rank 0]: Ranks 2, 3 failed to pass monitoredBarrier in 3000 ms"  # R
BARRIER_OTHER = (  # R: what the others say
    "Rank 1 successfully reached monitoredBarrier, but received errors while waiting for send/recv from rank 0. Please "
    f"check rank 0 logs for faulty rank.\n Original exception: \n{GLOO}"
)
BARRIER_DEAD = f"[Rank 0]: Rank 3 failed to pass monitoredBarrier in 3000 ms\n Original exception: \n{LOST}"  # R
