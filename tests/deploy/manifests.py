"""What is in `deploy/`, read without packages where that suffices: lists of words are JSON there, which YAML takes as it is."""

import json
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SBATCH = sorted((DEPLOY / "slurm").glob("*.sbatch"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
_WORDS = re.compile(r"^ *(?:- )?(command|args): (\[[^\]]*\])", re.MULTILINE)
_ENTRYPOINT = re.compile(r"^ *entrypoint: (.*)$", re.MULTILINE)
_FENCED = re.compile(r"^```(?:sh|console)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def command_lines(manifest: Path) -> list[list[str]]:
    """Each container's command and args, and each Ray job's entrypoint, that is rankguard's, from the word after `rankguard`."""
    found = [shlex.split(text) for text in _ENTRYPOINT.findall(manifest.read_text())]
    for name, text in _WORDS.findall(manifest.read_text()):
        words = json.loads(text)
        if name == "command":
            found.append(words)
        else:
            found[-1] = [*found[-1], *words]
    return [words[1:] for words in found if words[0] == "rankguard"]


def typed(page: Path) -> list[str]:
    """Lines of a page's blocks of commands that a reader would type, continued ones joined."""
    lines = "\n".join(_FENCED.findall(page.read_text())).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ").strip() for line in lines if line.strip()]
