"""What the README shows runs as it stands there; only the port is another."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge import ROOT

README = (ROOT / "README.md").read_text()
NODE_PACKAGES = Path(__file__).parents[2] / "node"


@pytest.mark.parametrize(
    ("language", "command"),
    [
        ("python", [sys.executable, "-"]),
        ("js", ["node", "--input-type=module"]),
        ("sh", ["bash", "-eu"]),
    ],
)
def test_snippet(edge, language: str, command: list[str]):
    (snippet,) = [block for block in blocks(language) if "127.0.0.1:8080" in block]
    result = subprocess.run(
        command,
        input=snippet.replace("http://127.0.0.1:8080", edge.http),
        env={**os.environ, "TIDEGATE_KEY": edge.key},
        cwd=NODE_PACKAGES,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "You asked" in result.stdout


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
