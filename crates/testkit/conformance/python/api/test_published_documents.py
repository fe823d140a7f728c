"""Answers, stream chunks and errors against the API documents that OpenAI and OpenRouter publish."""

import pytest

import documents
from exchanges import CHATS, call, chat


@pytest.fixture(scope="module")
def openai():
    return documents.openai()


@pytest.fixture(scope="module")
def openrouter():
    return documents.openrouter()


@pytest.fixture(params=["openai", "openrouter"])
def published(request):
    """Each document in turn, so that one which cannot be had does not take the other's tests with it."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("name", CHATS)
def test_answers(edge, published, name: str):
    for sim in edge.sims:
        answer = chat(edge, name, only=sim.provider)
        assert answer.status == 200, answer.body
        check(published.answer("post", "/chat/completions", 200), answer.json)


@pytest.mark.parametrize("name", CHATS)
def test_chunks(edge, published, name: str):
    schema = published.schema(published.chunk)
    for sim in edge.sims:
        answer = chat(edge, name, stream=True, only=sim.provider)
        assert answer.status == 200, answer.body
        for chunk in answer.chunks:
            check(schema, chunk)


def test_errors_of_the_caller(edge, openrouter):
    """OpenAI documents no error bodies for chat except 429, and with other fields: OpenRouter's form is the one promised."""
    provoked = {
        400: chat(edge, model="nobody/nothing"),
        401: call(edge, "POST", "/chat/completions", {"model": edge.models[0]}, key="tg-none"),
        404: chat(edge, provider={"only": ["nobody"]}),
    }
    for status, answer in provoked.items():
        assert answer.status == status
        check(openrouter.answer("post", "/chat/completions", status), answer.json)


@pytest.mark.parametrize(("fault", "statuses"), [("rate_limited", {429}), ("server_error", {502, 503}), ("overloaded", {503, 529})])
def test_errors_of_providers(own_edge, openrouter, fault: str, statuses: set[int]):
    own_edge.fault(fault)
    answer = chat(own_edge)
    assert answer.status in statuses
    check(openrouter.answer("post", "/chat/completions", answer.status), answer.json)


def test_an_error_inside_a_stream(own_edge, openrouter):
    own_edge.fault("cut")
    answer = chat(own_edge, stream=True)
    assert answer.status == 200
    last = [chunk for chunk in answer.chunks if "error" in chunk]
    assert len(last) == 1
    assert last[0]["choices"][0]["finish_reason"] == "error"
    check(openrouter.schema("ChatStreamChunk"), last[0])


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("/models", "/models"),
        ("/models/{author}/{slug}/endpoints", "/models/{model}/endpoints"),
        ("/providers", "/providers"),
        ("/key", "/key"),
        ("/generation", "/generation?id={generation}"),
    ],
)
def test_look_ups(edge, openrouter, path: str, address: str):
    generation = chat(edge).json["id"]
    answer = call(edge, "GET", address.format(model=edge.models[0], generation=generation))
    assert answer.status == 200
    check(openrouter.answer("get", path, 200), answer.json)


def test_the_model_list_is_openais_too(edge, openai):
    check(openai.answer("get", "/models", 200), call(edge, "GET", "/models").json)


def check(validator, instance) -> None:
    errors = [f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in validator.iter_errors(instance)]
    assert not errors, "\n".join(errors[:10])
