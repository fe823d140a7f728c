"""The document we serve ourselves: complete, reachable without a key, and true when schemathesis tries to break it."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from edge import WORK
from exchanges import trust

# Per operation and phase. More is a matter of patience: SCHEMATHESIS_EXAMPLES=1000 for a long run.
EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "25")
SEED = os.environ.get("SCHEMATHESIS_SEED", "1")

# What is asked of every answer: no 5xx, and status, media type and shape as documented.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance"

ROUTES = {
    ("post", "/chat/completions"),
    ("get", "/models"),
    ("get", "/models/{author}/{slug}/endpoints"),
    ("get", "/providers"),
    ("get", "/generation"),
    ("get", "/key"),
}


def test_it_lists_every_route_and_their_errors(edge):
    document = served(edge)

    assert document["openapi"].startswith("3.1")
    operations = {
        (method, path.removeprefix("/api").removeprefix("/v1"))
        for path, methods in document["paths"].items()
        for method in methods
        if method in ("get", "post", "delete", "head")
    }
    assert ROUTES <= operations
    chat = next(methods["post"] for path, methods in document["paths"].items() if path.endswith("/chat/completions"))
    assert {"200", "400", "401", "404", "429", "502", "503"} <= set(chat["responses"])
    assert "text/event-stream" in chat["responses"]["200"]["content"]


@pytest.mark.timeout(600)
def test_it_survives_schemathesis(own_edge):
    result = subprocess.run(
        [
            Path(sys.executable).with_name("st"),
            "run",
            f"{own_edge.https}/openapi.json",
            f"--header=Authorization: Bearer {own_edge.key}",
            f"--tls-verify={own_edge.ca}",
            f"--checks={CHECKS}",
            f"--max-examples={EXAMPLES}",
            f"--seed={SEED}",
            "--phases=examples,coverage,fuzzing",
            "--request-timeout=20",
            "--suppress-health-check=all",
            "--warnings=off",
            "--no-color",
        ],
        # It keeps a cache where it runs.
        cwd=WORK,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


def served(edge) -> dict:
    with urllib.request.urlopen(f"{edge.https}/openapi.json", context=trust(edge)) as answer:
        return json.load(answer)
