"""Streams through the OpenAI SDK, and their frames as bytes."""

import json
import ssl
import urllib.request

import openai

QUESTION = [{"role": "user", "content": "Tell a short story about a harbour."}]


def test_chunks_build_the_answer(client: openai.OpenAI, model: str):
    chunks = list(client.chat.completions.create(model=model, messages=QUESTION, stream=True))

    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(text) > 10
    finishes = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert finishes[-1] == "stop"
    assert finishes.count("stop") == 1


def test_usage_is_in_the_last_chunk_asked_for_or_not(client: openai.OpenAI, model: str):
    for options in ({}, {"stream_options": {"include_usage": True}}, {"stream_options": {"include_usage": False}}):
        chunks = list(client.chat.completions.create(model=model, messages=QUESTION, stream=True, **options))

        assert chunks[-1].choices == []
        assert chunks[-1].usage.total_tokens > 0
        assert chunks[-1].usage.cost > 0
        assert all(chunk.usage is None for chunk in chunks[:-1])


def test_metadata_rides_on_the_last_chunk(client: openai.OpenAI, model: str):
    chunks = list(
        client.chat.completions.create(
            model=model, messages=QUESTION, stream=True, extra_headers={"X-OpenRouter-Metadata": "enabled"}
        )
    )

    assert chunks[-1].openrouter_metadata["attempt"] >= 1
    assert not any("openrouter_metadata" in chunk.model_extra for chunk in chunks[:-1])


def test_the_stream_helper_accumulates(client: openai.OpenAI, model: str):
    with client.chat.completions.stream(model=model, messages=QUESTION) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()

    assert len(pieces) > 1
    assert final.choices[0].message.content == "".join(pieces)
    assert final.usage.total_tokens > 0


def test_frames_end_with_usage_and_done(edge, model: str):
    request = urllib.request.Request(
        f"{edge.v1}/chat/completions",
        data=json.dumps({"model": model, "messages": QUESTION, "stream": True}).encode(),
        headers={"authorization": f"Bearer {edge.key}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=edge.ca)) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-generation-id"].startswith("gen-")
        body = answer.read().decode()

    frames = body.split("\n\n")
    assert frames.pop() == "", "the body ends with an empty line"
    data = [frame.removeprefix("data: ") for frame in frames if not frame.startswith(":")]
    assert all(frame.startswith(("data: ", ":")) for frame in frames)
    assert data[-1] == "[DONE]"
    usage, finish = json.loads(data[-2]), json.loads(data[-3])
    assert usage["choices"] == [] and usage["usage"]["total_tokens"] > 0
    assert finish["choices"][0]["finish_reason"] == "stop"
