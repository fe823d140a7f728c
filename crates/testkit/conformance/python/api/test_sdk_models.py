"""Answers against the types the SDK makers generate from their API documents, read strictly: no coercion, every field of
the declared type. This needs nothing but the installed SDKs, so it runs on every machine."""

import pydantic
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openrouter import components, errors, operations

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
    readable(errors.BadRequestResponseErrorData, chat(edge, model="nobody/nothing").body)
    readable(errors.NotFoundResponseErrorData, chat(edge, provider={"only": ["nobody"]}).body)
    readable(errors.UnauthorizedResponseErrorData, call(edge, "GET", "/key", key="tg-none").body)


@pytest.mark.parametrize(
    ("model", "address"),
    [
        (components.ModelsListResponse, "/models"),
        (operations.ListEndpointsResponse, "/models/{model}/endpoints"),
        (operations.ListProvidersResponse, "/providers"),
        (operations.GetCurrentKeyResponse, "/key"),
        (components.GenerationResponse, "/generation?id={generation}"),
    ],
)
def test_look_ups(edge, model: type[pydantic.BaseModel], address: str):
    generation = chat(edge).json["id"]
    readable(model, call(edge, "GET", address.format(model=edge.models[0], generation=generation)).body)


def strictly(model: type[pydantic.BaseModel], body: bytes) -> None:
    model.model_validate_json(body, strict=True)


def readable(model: type[pydantic.BaseModel], body: bytes) -> None:
    """As the SDK itself reads: strings that stand for numbers pass, and words that an open list does not know."""
    model.model_validate_json(body)
