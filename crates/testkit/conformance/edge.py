#!/usr/bin/env python3
"""Starts `tidegate dev` for the suites, and is the only file that knows how.

Flags, the ready file, the layout of the data folder and the fault vocabulary of the simulated providers are all here; the
Python suites import it and the Node suite runs it:

    python edge.py prepare    make the development CA once
    python edge.py ca         print the path of that CA
    python edge.py serve      start an edge, print one JSON line about it, stop it when standard input closes

Every edge gets a data folder of its own, copied from a template, so that all edges of a run present certificates of the
same CA (Node reads its extra CAs only at start) and nothing else is shared between tests.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
WORK = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "ci" / "conformance"
TEMPLATE = WORK / "data-template"

# A debug build on a busy two-core machine starts in well under a second; this only bounds a start that hangs.
START_TIMEOUT_SECONDS = 30
STOP_TIMEOUT_SECONDS = 20

# The states the suites ask for, as scripts of the simulated providers (`crates/provider-sim/src/script.rs`).
FAULTS = {
    "none": "ok",
    "rate_limited": "status=429; retry-after=7",
    "rate_limited_briefly": "status=429; retry-after=1",
    "server_error": "status=500",
    "overloaded": "status=503",
    "cut": "cut=3",
    # First token after a second, then ten a second.
    "slow_stream": "slow=200",
    "silent": "hang",
}


@dataclass
class Sim:
    """One simulated provider."""

    provider: str
    dialect: str
    control: str

    def fault(self, name: str) -> None:
        """From now on every request meets this."""
        script = urllib.parse.quote(FAULTS[name])
        request = urllib.request.Request(f"{self.control}/fault?script={script}", data=b"", method="POST")
        with urllib.request.urlopen(request, timeout=5):
            pass

    def stats(self) -> dict:
        """What it has seen: `requests`, `active_requests`, `active_streams`, `disconnects`."""
        with urllib.request.urlopen(self.control, timeout=5) as answer:
            return json.load(answer)


@dataclass
class Edge:
    """A running edge, as its ready file describes it."""

    http: str
    https: str
    ops: str
    key: str
    ca: str
    models: list[str]
    sims: list[Sim]
    hosting: dict[str, list[str]] = field(default_factory=dict)
    faults: dict = field(default_factory=lambda: FAULTS)

    @property
    def v1(self) -> str:
        """The base URL an OpenAI SDK is given."""
        return f"{self.https}/v1"

    @property
    def api_v1(self) -> str:
        """The base URL an OpenRouter SDK is given."""
        return f"{self.https}/api/v1"

    @property
    def hosts(self) -> list[str]:
        """Slugs of the providers that host the first model."""
        return self.hosting[self.models[0]]

    def model_at(self, provider: str) -> str:
        """A model that this provider hosts."""
        return next(model for model, hosts in self.hosting.items() if provider in hosts)

    def fault(self, name: str) -> None:
        """Puts every simulated provider into the same state."""
        for sim in self.sims:
            sim.fault(name)

    def learn_hosts(self) -> None:
        for model in self.models:
            endpoints = self._get(f"/models/{model}/endpoints")["data"]["endpoints"]
            self.hosting[model] = list(dict.fromkeys(endpoint["tag"].split("/")[0] for endpoint in endpoints))

    def _get(self, path: str) -> dict:
        request = urllib.request.Request(f"{self.http}/api/v1{path}", headers={"authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)


class Running:
    """The process around an `Edge`. A context manager: leaving it stops the edge and removes its data."""

    def __init__(self, keep_data: Path | None = None):
        self.keep_data = keep_data

    def __enter__(self) -> Edge:
        binary = find_binary()
        WORK.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="edge-", dir=WORK))
        data = self.keep_data or self.folder / "data"
        if self.keep_data is None:
            shutil.copytree(TEMPLATE, data)
        ready = self.folder / "ready.json"
        self.log = self.folder / "edge.log"
        quiet = ["--reliable", "--traffic", "0", "--no-real-providers", "--plain"]
        listeners = ["--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--ops", "127.0.0.1:0"]
        files = ["--data-dir", str(data), "--ready-file", str(ready)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [binary, "dev", *listeners, *files, *quiet],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )
        try:
            edge = parse_ready(self._wait_for(ready))
            edge.learn_hosts()
            return edge
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise RuntimeError(f"the edge did not drain within {STOP_TIMEOUT_SECONDS} s") from None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_for(self, ready: Path) -> dict:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the edge stopped with {self.process.returncode}:\n{self._log_end()}")
            if ready.exists():
                return json.loads(ready.read_text())
            time.sleep(0.01)
        raise RuntimeError(f"the edge was not ready after {START_TIMEOUT_SECONDS} s:\n{self._log_end()}")

    def _log_end(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])


def parse_ready(ready: dict) -> Edge:
    return Edge(
        http=ready["http"],
        https=ready["https"],
        ops=ready["ops"],
        key=ready["key"],
        ca=ready["ca"],
        models=[model["slug"] for model in ready["models"]],
        sims=[Sim(sim["provider"], sim["dialect"], sim["control"]) for sim in ready["sims"]],
    )


def find_binary() -> str:
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    candidates = [os.environ.get("TIDEGATE_BIN"), target / "debug/tidegate", target / "release/tidegate"]
    for candidate in candidates:
        if candidate and Path(candidate).exists():
            return str(candidate)
    raise RuntimeError("no tidegate binary: run `cargo build`, or set TIDEGATE_BIN")


def prepare() -> Path:
    """Makes the template data folder and returns the path of its CA certificate."""
    note = WORK / "ca-path"
    if not (TEMPLATE.exists() and note.exists() and Path(note.read_text()).exists()):
        shutil.rmtree(TEMPLATE, ignore_errors=True)
        TEMPLATE.mkdir(parents=True)
        with Running(keep_data=TEMPLATE) as edge:
            note.write_text(edge.ca)
    return Path(note.read_text())


def serve() -> None:
    prepare()
    with Running() as edge:
        print(json.dumps({**asdict(edge), "v1": edge.v1, "api_v1": edge.api_v1, "hosts": edge.hosts}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prepare"]:
            prepare()
        case ["ca"]:
            print(prepare())
        case ["serve"]:
            serve()
        case _:
            sys.exit(__doc__)
