"""Real exchanges with a running edge, as bytes, for the validators to judge."""

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass

QUESTION = [{"role": "user", "content": "Name a colour of the sea."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "paint",
        "parameters": {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]},
    },
}

# Chat requests whose answers cover the shapes a caller can meet.
CHATS = {
    "plain": {},
    "tools": {"tools": [TOOL], "tool_choice": "required"},
    "reasoning": {"reasoning": {"effort": "high"}},
    "json": {"response_format": {"type": "json_object"}},
    "cut short": {"max_tokens": 1},
    "metadata": {},
}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def chunks(self) -> list:
        """The JSON of each event of a stream, the end marker left out."""
        lines = [line.removeprefix("data: ") for line in self.body.decode().splitlines() if line.startswith("data: ")]
        assert lines[-1] == "[DONE]", "the stream ends with its marker"
        return [json.loads(line) for line in lines[:-1]]


def chat(edge, name: str = "plain", stream: bool = False, only: str | None = None, **fields) -> Answer:
    body = {"model": edge.models[0], "messages": QUESTION, **CHATS[name], **fields}
    if stream:
        body["stream"] = True
    if only:
        body["provider"] = {"only": [only]}
        body["model"] = edge.model_at(only)
    headers = {"X-OpenRouter-Metadata": "enabled"} if name == "metadata" else {}
    return call(edge, "POST", "/chat/completions", body, headers)


def call(edge, method: str, path: str, body=None, headers: dict[str, str] | None = None, key: str | None = None) -> Answer:
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        edge.api_v1 + path,
        data=data,
        headers={"authorization": f"Bearer {key or edge.key}", "content-type": "application/json", **(headers or {})},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, context=trust(edge), timeout=30) as answer:
            return Answer(answer.status, dict(answer.headers.items()), answer.read())
    except urllib.error.HTTPError as answer:
        return Answer(answer.code, dict(answer.headers.items()), answer.read())


def trust(edge) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=edge.ca)
