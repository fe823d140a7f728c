"""OpenRouter's own SDK: it validates every answer against models generated from OpenRouter's API document, so an answer
it returns has the documented shape."""

import pytest
from openrouter import components, errors

from conftest import openrouter_client

QUESTION = [{"role": "user", "content": "Name a colour of the sea."}]


def test_chat(openrouter, model: str):
    answer = openrouter.chat.send(model=model, messages=QUESTION)

    assert isinstance(answer, components.ChatResult)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.cost > 0


def test_stream(openrouter, model: str):
    with openrouter.chat.send(model=model, messages=QUESTION, stream=True) as stream:
        chunks = list(stream)

    assert all(isinstance(chunk, components.ChatStreamChunk) for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens > 0


def test_provider_preferences(openrouter, model: str):
    answer = openrouter.chat.send(
        model=model,
        messages=QUESTION,
        provider={
            "sort": "price",
            "allow_fallbacks": True,
            "data_collection": "allow",
            "require_parameters": False,
            "max_price": {"prompt": "1000", "completion": "1000"},
            "preferred_max_latency": 30,
            "preferred_min_throughput": {"p50": 1},
        },
        session_id="session-of-the-suite",
        metadata={"suite": "conformance"},
    )

    assert answer.choices[0].message.content


def test_order_and_only(openrouter, model: str, hosts: list[str]):
    for slug in hosts:
        answer = openrouter.chat.send(
            model=model,
            messages=QUESTION,
            provider={"order": [slug], "allow_fallbacks": False},
            x_open_router_metadata="enabled",
        )
        chosen = [endpoint for endpoint in answer.openrouter_metadata.endpoints.available if endpoint.selected]
        assert len(chosen) == 1
        assert answer.openrouter_metadata.attempt == 1


def test_reasoning_effort(openrouter, model: str):
    answer = openrouter.chat.send(model=model, messages=QUESTION, reasoning={"effort": "medium"})

    assert answer.choices[0].message.reasoning
    assert answer.choices[0].message.reasoning_details


def test_tools(openrouter, model: str):
    answer = openrouter.chat.send(
        model=model,
        messages=QUESTION,
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "paint",
                    "parameters": {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]},
                },
            }
        ],
        tool_choice={"type": "function", "function": {"name": "paint"}},
    )

    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.tool_calls[0].function.name == "paint"


def test_models_endpoints_and_providers(openrouter, edge):
    listed = {model.id for model in openrouter.models.list().result.data}
    assert set(edge.models) <= listed

    author, slug = edge.models[0].split("/", 1)
    endpoints = openrouter.endpoints.list(author=author, slug=slug).data
    assert endpoints.id == edge.models[0]
    assert endpoints.endpoints

    assert len(openrouter.providers.list().data) >= 4


def test_generations_can_be_looked_up(openrouter, model: str):
    answer = openrouter.chat.send(model=model, messages=QUESTION)

    record = openrouter.generations.get_generation(id=answer.id).data
    assert record.id == answer.id
    assert record.tokens_prompt == answer.usage.prompt_tokens
    assert record.total_cost == pytest.approx(answer.usage.cost)
    assert record.cancelled in (False, None)


def test_the_key_describes_itself(openrouter):
    assert openrouter.api_keys.get_current_key_metadata().data.label


def test_errors_have_their_class(openrouter, edge, model: str):
    with pytest.raises(errors.BadRequestResponseError):
        openrouter.chat.send(model="nobody/nothing", messages=QUESTION)
    with pytest.raises(errors.NotFoundResponseError):
        openrouter.chat.send(model=model, messages=QUESTION, provider={"only": ["nobody"]})
    with pytest.raises(errors.NotFoundResponseError):
        openrouter.generations.get_generation(id="gen-none")
    edge_with_bad_key = type(edge)(**{**vars(edge), "key": "tg-none"})
    with openrouter_client(edge_with_bad_key) as client, pytest.raises(errors.UnauthorizedResponseError):
        client.chat.send(model=model, messages=QUESTION)
