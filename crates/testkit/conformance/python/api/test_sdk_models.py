"""Answers against the types the SDK makers generate from their API documents, read strictly: no coercion, every field of
the declared type. This needs nothing but the installed SDKs, so it runs on every machine."""

import pydantic
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openrouter import components, operations

from exchanges import CHATS, call, chat


@pytest.mark.parametrize("name", CHATS)
def test_answers(edge, name: str):
    for sim in edge.sims:
        answer = chat(edge, name, only=sim.provider)
        assert answer.status == 200, answer.body
        strictly(ChatCompletion, answer.body)
        strictly(components.ChatResult, answer.body)


@pytest.mark.parametrize("name", CHATS)
def test_chunks(edge, name: str):
    for sim in edge.sims:
        for line in chat(edge, name, stream=True, only=sim.provider).body.splitlines():
            if line.startswith(b"data: {"):
                strictly(ChatCompletionChunk, line.removeprefix(b"data: "))
                strictly(components.ChatStreamChunk, line.removeprefix(b"data: "))


def test_errors(edge):
    strictly(components.BadRequestResponse, chat(edge, model="nobody/nothing").body)
    strictly(components.NotFoundResponse, chat(edge, provider={"only": ["nobody"]}).body)
    strictly(components.UnauthorizedResponse, call(edge, "GET", "/key", key="tg-none").body)


def test_look_ups(edge):
    generation = chat(edge).json["id"]
    strictly(components.ModelsListResponse, call(edge, "GET", "/models").body)
    strictly(operations.ListEndpointsResponse, call(edge, "GET", f"/models/{edge.models[0]}/endpoints").body)
    strictly(operations.ListProvidersResponse, call(edge, "GET", "/providers").body)
    strictly(components.GenerationResponse, call(edge, "GET", f"/generation?id={generation}").body)


def strictly(model: type[pydantic.BaseModel], body: bytes) -> None:
    model.model_validate_json(body, strict=True)
