"""Victims by their words. Texts marked R were recorded (torch 2.13 with gloo, CPython 3.11), the others are the
runtimes' own, from their sources and public issues."""

import subprocess
import sys

import pytest
from tests.diagnosis.cases import error

from rankguard.diagnosis.peers import collective_timeout, peer_death
from rankguard.diagnosis.tracebacks import clean, last_traceback

GLOO = (  # R
    "[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:26538. "
    "This is typically caused by a remote worker crashing. Check the logs of the remote worker before reporting an error."
)
GLOO_LOG = f"""\
[rank0]: Traceback (most recent call last):
[rank0]:   File "/tmp/gloo/t.py", line 23, in <module>
[rank0]:     for i in range(1000): dist.all_reduce(t)
[rank0]:                           ^^^^^^^^^^^^^^^^^^
[rank0]:   File "/venv/lib/python3.11/site-packages/torch/distributed/c10d_logger.py", line 83, in wrapper
[rank0]:     return func(*args, **kwargs)
[rank0]:            ^^^^^^^^^^^^^^^^^^^^^
[rank0]: RuntimeError: {GLOO}
"""
NCCL_LOG = """\
Traceback (most recent call last):
  File "/app/train.py", line 12, in main
    dist.barrier()
torch.distributed.DistBackendError: NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.hpp:268, remote process exited or there was a network error, NCCL version 2.21.5
ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.
Last error:
socketProgressOpt: Call to recv from 172.16.0.2<33759> failed : Connection reset by peer
"""
NCCL_ABORT = """\
[rank4]:[E1206 18:44:12.755 ProcessGroupNCCL.cpp:1834] [PG 1 Rank 4] Process group watchdog thread terminated with exception: NCCL error: remote process exited or there was a network error, NCCL version 2.20.5
terminate called after throwing an instance of 'c10::DistBackendError'
  what():  [PG 1 Rank 4] Process group watchdog thread terminated with exception: NCCL error: remote process exited or there was a network error, NCCL version 2.20.5
frame #0: c10::Error::Error(c10::SourceLocation, std::string) + 0x96 (0x7f in /x/libc10.so)
frame #1: <unknown function> + 0xe3ec34 (0x7f7 in /x/libtorch_cuda.so)
frame #2: <unknown function> + 0xd6df4 (0x7f in /lib/libstdc++.so.6)
"""
WATCHDOG = """\
[rank0]:[E1206 18:44:12.715298746 ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7753, OpType=_REDUCE_SCATTER_BASE, NumelIn=544997376, NumelOut=68124672, Timeout(ms)=600000) ran for 600061 milliseconds before timing out.
"""
TCPSTORE = """\
[W1112 08:14:03.123 TCPStore.cpp:125] [c10d] recvValue failed on SocketImpl(fd=63, addr=[localhost]:51822, remote=[localhost]:29500): failed to recv, got 0 bytes
"""
STORE = (  # R: rank 0 killed
    "Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server shutdown or crash?"
)
GLOO_TIMEOUT = (
    "[/x/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 8000ms for recv operation to complete"  # R
)
BARRIER = f"[Rank 0]: Rank 1 failed to pass monitoredBarrier in 3000 ms\n Original exception: \n{GLOO_TIMEOUT}"  # R
BARRIER_LOST = (  # R: what rank 2 says when rank 0 has given up
    "Rank 2 successfully reached monitoredBarrier, but received errors while waiting for send/recv from rank 0. Please "
    f"check rank 0 logs for faulty rank.\n Original exception: \n{GLOO}"
)
JAX = """\
E0929 17:42:48.594192 1044529 coordination_service_agent.cc:332] Polled an error from coordination service (this can be an error from this or another task).
F0929 17:42:48.594200 1044529 client.h:77] Terminating process because the JAX distributed service detected fatal errors. This most likely indicates that another task died; see the other task logs for more details.
"""
XGBOOST = (  # R: xgboost 3.2, after another worker had ended
    "[09:17:13] /workspace/src/collective/result.cc:83: [histogram.h:197|09:17:13]:\n\n"
    "- [allreduce.cc:135|09:17:13]: Ring Allreduce failed.\n"
    "- [allreduce.cc:101|09:17:13]: Ring scatter reduce failed, current iteration:0\n"
    "- [loop.cc:101|09:17:13]: Encountered EOF. The other end is likely closed.\nStack trace:\n"
)
XGBOOST_ENDED = (  # R: a worker has called `collective.signal_error()`; the others end with 255
    "[09:21:40] WARNING: /workspace/src/collective/comm.cc:245: Another worker is running into error.\n"
)
JAX_GLOO = "UNKNOWN: Gloo AllGather failed: [external/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1436"  # R

VICTIMS = {
    "xgboost": 'Traceback (most recent call last):\n  File "a.py", line 1, in f\nxgboost.core.XGBoostError: '
    + XGBOOST
    + "".join(f"  [bt] ({n}) /x/libxgboost.so(+0x1103{n}) [0x7f0d7351031e]\n" for n in range(9)),
    "xgboost, told to end": XGBOOST_ENDED,
    "gloo": GLOO_LOG,
    "nccl": NCCL_LOG,
    "nccl abort": NCCL_ABORT,
    "nccl watchdog": WATCHDOG,
    "tcpstore": TCPSTORE,
    "jax": JAX,
    "c, perror": "step 12\nrecv: Connection reset by peer\n",
    "c, write": "step 12\nunable to send: Broken pipe\n",
    "open mpi": "An MPI communication peer process has unexpectedly disconnected.  This\nusually indicates a failure in the peer process\n",
    # open-mpi/ompi mailing list, "Connection reset by peer (104)"
    "open mpi over tcp": "[node2][[5,1],3][btl_tcp.c:501:mca_btl_tcp_recv_blocking] recv(25) failed: Connection reset by peer (104)\nstep\nstep\nstep\nstep\n",
    "open mpi's daemon": "ORTE has lost communication with a remote daemon.\n\n  HNP daemon   : [[17757,0],0] on node a\n  Remote daemon: [[17757,0],13] on node b\n",
    # openucx/ucx issues 9590 and 1920
    "ucx over infiniband": "[lxbk1127:2330856:0:2330856] ib_mlx5_log.c:177  Transport retry count exceeded on mlx5_0:1/IB (synd 0x15 vend 0x81 hw_synd 0/0)\n[lxbk1127:2330856:0:2330856] ib_mlx5_log.c:177  DCI QP 0xd16 wqe[6168]: SEND s-e [rqpn 0x17de rlid 1037]\n==== backtrace (tid:2330856) ====\n",
    "ucx, endpoint": "[1516700569.601083] [clx-orion-010:31714:0]     ucp_worker.c:437  UCX  ERROR Error Endpoint timeout was not handled for ep 0x1d33870 - rc_mlx5/mlx5_2:1\n",
    "open mpi over ucx": "Error: mca_pml_ucx_send_nbr failed: -25, Connection reset by remote peer\n",
    # deepseek-ai/DeepEP issues 38 and 223
    "nvshmem": "/x/bootstrap/uid/ncclSocket/ncclsocket_socket.cpp:socketProgress:59: socketProgress: Connection closed by remote peer h100-216<56124>\n/x/bootstrap_uid.cpp:97: non-zero status: -6\n/x/init.cu:992: non-zero status: 7 building transport map failed\n",
    "nvshmem, write": "/x/ncclsocket_socket.cpp:socketProgressOpt:39: socketProgressOpt: Call to recv from 10.179.114.196<38229> failed : Broken pipe\n/x/init.cu:998: non-zero status: 7 building transport map failed\n",
    "ray": 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    ray.get(x)\nray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.\n',
    "multiprocessing": 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    c.recv()\n  File "/usr/lib/python3.11/multiprocessing/connection.py", line 250, in recv\n    buf = self._recv_bytes()\nEOFError\n',
    "traceback without its head": '  File "/usr/lib/python3.11/socket.py", line 706, in readinto\n    return self._sock.recv_into(b)\nConnectionResetError: [Errno 104] Connection reset by peer\n',
    "ignored noise after it": GLOO_LOG
    + "[rank0]:[W1 ProcessGroup.cpp] destroy_process_group() was not called before program exit\n",
    "abort after a handled traceback": 'Traceback (most recent call last):\n  File "a.py", line 1, in f\nKeyError: 3\n'
    + NCCL_ABORT,
    "ray prefix, colours": "\x1b[36m(RayWorkerWrapper pid=4009)\x1b[0m " + WATCHDOG,
}

NO_VICTIMS = {
    "empty": "",
    "own ValueError about connections": 'Traceback (most recent call last):\n  File "a.py", line 1, in f\nValueError: connection must not be None\n',
    "own ValueError with the very words": 'Traceback (most recent call last):\n  File "a.py", line 1, in f\nValueError: cannot parse "Connection reset by peer"\n',
    "own error after a peer's message": GLOO_LOG.replace("[rank0]: ", "")
    + 'Traceback (most recent call last):\n  File "a.py", line 1, in f\nTypeError: no\n',
    "survived": "recv: Connection reset by peer\nretrying in 1 s\nconnected\nstep 1\nstep 2\nstep 3\n",
    "warned": "WARNING: Connection reset by peer, will try again\n",
    "xgboost, its own": 'Traceback (most recent call last):\n  File "a.py", line 1, in f\nxgboost.core.XGBoostError: [09:17:13] /workspace/src/objective/regression_obj.cu:48: label must be in [0,1]\n',
    "xgboost, not yet there": "UserWarning: [09:17:05] WARNING: /workspace/src/collective/socket.cc:143: Failed to connect to:127.0.0.1:9091\n",
    "far above": TCPSTORE + "step\n" * 30,
    "cuda error in nccl": "RuntimeError: NCCL error in: ProcessGroupNCCL.cpp:1331, unhandled cuda error (run with NCCL_DEBUG=INFO for details)\n",
    "input at its end": 'Traceback (most recent call last):\n  File "a.py", line 1, in f\nEOFError: EOF when reading a line\n',
    "pickle at its end": 'Traceback (most recent call last):\n  File "/x/pickle.py", line 1, in load\nEOFError: Ran out of input\n',
    "said goodbye while failing": 'Traceback (most recent call last):\n  File "a.py", line 1, in f\nValueError: bad batch\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File "a.py", line 3, in f\n    dist.destroy_process_group()\nConnectionResetError: [Errno 104] Connection reset by peer\n',
    "a download": "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\nrequests.exceptions.ConnectionError: ('Connection aborted.', ConnectionResetError(104, 'Connection reset by peer'))\n",
}


@pytest.mark.parametrize("text", VICTIMS.values(), ids=VICTIMS)
def test_a_victims_log(text: str) -> None:
    phrase = peer_death(text)

    assert phrase is not None
    assert 0 < len(phrase) <= 160


@pytest.mark.parametrize("text", NO_VICTIMS.values(), ids=NO_VICTIMS)
def test_no_victims_log(text: str) -> None:
    assert peer_death(text) is None


def test_the_phrase_is_the_words_that_show_it() -> None:
    expected = "RuntimeError: [/x/gloo/transport/tcp/pair.cc:1] Connection closed by peer [::1]:7"
    text = f'Traceback (most recent call last):\n  File "a.py", line 1, in f\n{expected}\n'

    assert peer_death(text) == expected


EXCEPTIONS = [
    (error("ConnectionResetError", "[Errno 104] Connection reset by peer"), True),
    (error("BrokenPipeError", "[Errno 32] Broken pipe"), True),
    (error("RemoteDisconnected", "", module="http.client"), False),
    (error("RuntimeError", GLOO), True),
    (error("torch.distributed.DistBackendError", "NCCL error in: x.cpp:1, remote process exited or there was a network error"), True),
    (error("DistBackendError", "NCCL error in: x.cpp:1, unhandled cuda error", module="torch.distributed"), False),
    (error("DistBackendError", "ncclSystemError: System call (e.g. socket, malloc) or external library call failed"), True),
    (error("DistStoreError", "Timed out after 61 seconds waiting for clients. 1/2 clients joined.", module="torch"), True),
    (error("DistNetworkError", STORE, module="torch.distributed"), True),
    (error("RuntimeError", GLOO_TIMEOUT), True),
    (error("RuntimeError", BARRIER), True),
    (error("RuntimeError", BARRIER_LOST), True),
    (error("OSError", "[Errno 28] No space left on device"), False),
    (error("ValueError", "Connection reset by peer"), False),
    (error("EOFError", ""), True),
    (error("EOFError", "", frames=("/usr/lib/python3.11/multiprocessing/connection.py:250 recv",)), True),
    (error("EOFError", "", frames=("/app/read.py:1 header",)), False),
    (error("EOFError", "Ran out of input"), False),
    # the chain: its root is what came first
    (error("ConnectionResetError", "x", chain=("ValueError: bad batch",)), False),
    (error("RuntimeError", GLOO, chain=("DataError: bad batch",)), False),
    (error("RuntimeError", GLOO, chain=("BrokenPipeError: [Errno 32] Broken pipe",)), True),
    (error("RuntimeError", GLOO, chain=("Empty",)), True),
    (error("EngineFailure", "worker failed", chain=("ConnectionResetError: [Errno 104] Connection reset by peer",)), True),
    (error("ValueError", "no reply", chain=("ConnectionResetError: x",)), False),
    (error("ValueError", "no reply", chain=("ConnectionResetError: x",), traceback="…\nThe above exception was the direct cause of the following exception:\n…"), True),
    (error("ValueError", "x", chain=("KeyError: 3",)), False),
    # runtimes that raise what is a mistake elsewhere
    (error("ValueError", JAX_GLOO), True),
    (error("ValueError", f"unable to parse {JAX_GLOO}"), False),
    (error("XGBoostError", XGBOOST, module="xgboost.core"), True),
]  # fmt: skip


@pytest.mark.parametrize(("exception", "is_victim"), EXCEPTIONS)
def test_exceptions(exception, is_victim) -> None:
    assert (peer_death("", exception) is not None) is is_victim


def test_an_exception_outranks_the_text() -> None:
    assert peer_death(GLOO_LOG, error("ValueError", "bad batch")) is None


def test_a_collective_that_timed_out() -> None:
    assert collective_timeout(WATCHDOG) is not None
    assert collective_timeout(GLOO_TIMEOUT) is not None
    assert collective_timeout(BARRIER) is not None
    assert collective_timeout(BARRIER_LOST) is None
    assert collective_timeout(GLOO_LOG) is None


def test_a_long_path_does_not_hide_the_words() -> None:
    path = "/".join(["deep"] * 40)

    phrase = peer_death(
        "", error("RuntimeError", f"[{path}/gloo/transport/tcp/pair.cc:1] Connection closed by peer [::1]:7")
    )

    assert phrase is not None
    assert "Connection closed by peer" in phrase or len(phrase) <= 160


RAISES = {
    "all leaves": ("raise ExceptionGroup('g', [lost, BrokenPipeError(32, 'Broken pipe')])", True),
    "a group in a group": ("raise ExceptionGroup('g', [ExceptionGroup('h', [lost]), lost])", True),
    "one leaf is its own": ("raise ExceptionGroup('g', [ValueError('bad batch'), lost])", False),
    "its own leaf comes last": ("raise ExceptionGroup('g', [lost, ValueError('bad batch')])", False),
    "after its own error": ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise ExceptionGroup('g', [lost])", False),
    "a task group": (
        ("import asyncio\nasync def lose():\n    raise lost\nasync def wait():\n    await asyncio.sleep(60)\n"
        "async def main():\n    async with asyncio.TaskGroup() as group:\n"
        "        group.create_task(wait())\n        group.create_task(lose())\nasyncio.run(main())"),
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("program", "is_victim"), RAISES.values(), ids=RAISES)
def test_an_exception_group_as_python_prints_it(program, is_victim) -> None:
    text = f"lost = ConnectionResetError(104, 'Connection reset by peer')\n{program}"
    log = subprocess.run([sys.executable, "-I", "-c", text], stderr=subprocess.PIPE, text=True, check=False).stderr

    assert (peer_death(log) is not None) is is_victim
    logged = last_traceback(clean(log))
    assert logged is not None
    assert (peer_death("", logged.exception) is not None) is is_victim
