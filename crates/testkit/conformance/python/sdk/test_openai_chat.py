"""Plain answers through the OpenAI SDK, and OpenRouter's options through its `extra_body`."""

import base64
import re
import struct
import zlib
from decimal import Decimal

import openai
import pytest

QUESTION = [{"role": "user", "content": "Name a colour of the sea."}]


def test_chat_answers(client: openai.OpenAI, model: str):
    answer = client.chat.completions.create(model=model, messages=QUESTION)

    assert re.fullmatch(r"gen-[0-9A-Za-z-]+", answer.id)
    assert answer.object == "chat.completion"
    assert answer.model.startswith(model.split(":")[0])
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].native_finish_reason
    assert answer.provider


def test_usage_carries_tokens_and_cost(client: openai.OpenAI, model: str):
    usage = client.chat.completions.create(model=model, messages=QUESTION).usage

    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert Decimal(str(usage.cost)) > 0
    assert usage.is_byok is False
    parts = usage.cost_details
    assert Decimal(str(parts["upstream_inference_prompt_cost"])) > 0
    assert Decimal(str(parts["upstream_inference_completions_cost"])) > 0


def test_every_answer_names_its_generation(client: openai.OpenAI, model: str):
    raw = client.chat.completions.with_raw_response.create(model=model, messages=QUESTION)

    assert raw.headers["x-generation-id"] == raw.parse().id


def test_a_conversation_with_a_system_prompt(client: openai.OpenAI, model: str):
    answer = client.chat.completions.create(
        model=model,
        messages=[
            {"role": "system", "content": "You are terse."},
            {"role": "user", "content": [{"type": "text", "text": "What is two and two?"}]},
            {"role": "assistant", "content": "Four."},
            {"role": "user", "content": "And three more?"},
        ],
        temperature=0.2,
        top_p=0.9,
        seed=7,
        user="somebody",
    )

    assert answer.choices[0].message.content


def test_max_tokens_cuts_the_answer(client: openai.OpenAI, model: str):
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=1)

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 1


def test_an_image_is_read(client: openai.OpenAI, edge):
    answer = client.chat.completions.create(
        model=edge.models[0],
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is in this picture?"},
                    {"type": "image_url", "image_url": {"url": picture()}},
                ],
            }
        ],
    )

    assert answer.choices[0].message.content


def test_reasoning_comes_beside_the_answer(client: openai.OpenAI, edge):
    for sim in edge.sims:
        answer = client.chat.completions.create(
            model=edge.model_at(sim.provider),
            messages=QUESTION,
            extra_body={"reasoning": {"effort": "high"}, "provider": {"only": [sim.provider]}},
        )

        message = answer.choices[0].message
        assert message.content, sim.provider
        assert message.reasoning, sim.provider
        assert message.reasoning_details[0]["type"].startswith("reasoning."), sim.provider
        if sim.dialect != "anthropic-messages":  # which counts them among the completion only
            assert answer.usage.completion_tokens_details.reasoning_tokens > 0, sim.provider


def test_excluded_reasoning_stays_away(client: openai.OpenAI, model: str):
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, extra_body={"reasoning": {"effort": "low", "exclude": True}}
    )

    message = answer.choices[0].message
    assert message.content
    assert not getattr(message, "reasoning", None)
    assert not getattr(message, "reasoning_details", None)


def test_models_are_listed(client: openai.OpenAI, edge):
    listed = {listed.id for listed in client.models.list()}

    assert set(edge.models) <= listed


@pytest.mark.parametrize("how", [{"extra_body": {"provider": {"sort": "price"}}}, {"variant": ":floor"}])
def test_the_cheapest_provider_is_taken_when_asked(client: openai.OpenAI, edge, model: str, how: dict):
    prices = {
        endpoint["provider_name"]: Decimal(endpoint["pricing"]["completion"])
        for endpoint in client.get(f"/models/{model}/endpoints", cast_to=object)["data"]["endpoints"]
    }
    cheapest = min(prices, key=prices.__getitem__)

    how = dict(how)
    asked = model + how.pop("variant", "")
    for _ in range(3):
        answer = client.chat.completions.create(model=asked, messages=QUESTION, **how)
        assert answer.provider == cheapest


@pytest.mark.parametrize("options", [{"provider": {"sort": "throughput"}}, {"provider": {"sort": "latency"}}])
def test_the_other_orders_are_understood(client: openai.OpenAI, model: str, options: dict):
    assert client.chat.completions.create(model=model, messages=QUESTION, extra_body=options).provider


def test_providers_that_keep_data_are_left_out_when_asked(client: openai.OpenAI, model: str):
    for preferences in ({"data_collection": "deny"}, {"zdr": True}):
        for _ in range(6):
            answer = client.chat.completions.create(
                model=model, messages=QUESTION, extra_body={"provider": preferences}
            )
            # What the simulated fleet declares: these two train on prompts.
            assert answer.provider not in ("Kelpforge", "Driftwood")


def test_order_and_only_choose_the_provider(client: openai.OpenAI, model: str, hosts: list[str]):
    for slug in hosts:
        for preferences in ({"order": [slug], "allow_fallbacks": False}, {"only": [slug]}):
            answer = client.chat.completions.create(
                model=model, messages=QUESTION, extra_body={"provider": preferences}
            )
            assert slug_of(answer.provider) == slug_of(slug)


def test_ignored_providers_are_not_used(client: openai.OpenAI, model: str, hosts: list[str]):
    for _ in range(5):
        answer = client.chat.completions.create(
            model=model, messages=QUESTION, extra_body={"provider": {"ignore": [hosts[0]]}}
        )
        assert slug_of(answer.provider) != slug_of(hosts[0])


def test_a_fallback_model_takes_over(client: openai.OpenAI, edge):
    everywhere, narrow = edge.models[0], min(edge.models, key=lambda model: len(edge.hosting[model]))
    elsewhere = next(host for host in edge.hosting[everywhere] if host not in edge.hosting[narrow])

    answer = client.chat.completions.create(
        model=narrow,
        messages=QUESTION,
        extra_body={"models": [everywhere], "provider": {"only": [elsewhere]}},
    )
    assert answer.model.startswith(everywhere)


def test_router_metadata_when_asked_for(client: openai.OpenAI, model: str):
    for header, name in (
        ("X-Tidegate-Metadata", "tidegate_metadata"),
        ("X-OpenRouter-Metadata", "openrouter_metadata"),
    ):
        answer = client.chat.completions.create(model=model, messages=QUESTION, extra_headers={header: "enabled"})
        metadata = answer.model_extra[name]
        assert metadata["requested"] == model
        assert metadata["attempt"] >= 1
        assert metadata["endpoints"]["total"] >= 1
        assert any(endpoint["selected"] for endpoint in metadata["endpoints"]["available"])

    answer = client.chat.completions.create(model=model, messages=QUESTION)
    assert not {"tidegate_metadata", "openrouter_metadata"} & set(answer.model_extra)


def test_unknown_query_parameters_are_ignored(client: openai.OpenAI, model: str):
    answer = client.chat.completions.create(model=model, messages=QUESTION, extra_query={"beta": "true"})

    assert answer.choices[0].message.content


def picture() -> str:
    """A red square of 8 by 8 pixels as a data URL."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\xff\0\0" * 8 for _ in range(8))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()


def slug_of(provider: str) -> str:
    """Answers carry the display name, preferences take the slug: compare what they have in common."""
    return re.sub(r"[^a-z0-9]", "", provider.lower())
