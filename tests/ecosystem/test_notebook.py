"""A notebook in a real kernel: ranks by a function of the notebook, a failure, and what its cells show."""

import sys

import pytest

nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
nbformat = pytest.importorskip("nbformat")

CELLS = [
    "import rankguard, sys",
    """
job = rankguard.launch([sys.executable, "-c", "import os, sys; int(os.environ['RANK']) and sys.exit(3); sys.stdin.read()"],
                       nprocs=2, console="none")
try:
    with job:
        job.wait()
except rankguard.RankFailed as error:
    verdict = error.verdict
verdict
""",
    "job",
    "rankguard.read_run(job.run_dir)",
    "sum(1 for event in rankguard.read_run(job.run_id).events('Exited'))",
    "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])\ng = rankguard.guard([child], on_failure=print)\ng",
    "with g:\n    child.kill(); shown = g.future.result()\nchild.wait()\nshown",
    "job.wait()",
]


def test_a_notebook_shows_who_failed(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    kernel = {"display_name": "this Python", "language": "python", "name": "python3"}
    notebook.metadata["kernelspec"] = kernel
    client = nbclient.NotebookClient(
        notebook, timeout=300, startup_timeout=300, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.create_kernel_manager()
    client.km.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]

    client.execute()

    cells = [cell.outputs for cell in notebook.cells]
    shown = [
        next((each["data"] for each in outputs if each.output_type == "execute_result"), None) for outputs in cells
    ]
    for data in (shown[1], shown[2], shown[3]):
        assert "rank 1 of 2 ended with exit code 3" in data["text/html"], cells
        assert "<table" in data["text/html"]
        assert data["text/plain"].startswith("<rankguard.")
    assert shown[4]["text/plain"] == "2"
    assert shown[5]["text/plain"] == "<rankguard.Guard of 1 process, not armed yet>"
    assert "SIGKILL" in shown[6]["text/html"]
    assert [(each.output_type, each.get("ename")) for each in cells[7]] == [("error", "RankFailed")]
    assert "rank 1 of 2 ended with exit code 3" in cells[7][0].evalue
