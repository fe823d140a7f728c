"""Errors as the OpenAI SDK sees them: the exception class, the status, and the typed body."""

import openai
import pytest

from conftest import openai_client

QUESTION = [{"role": "user", "content": "Hello?"}]


def test_a_bad_key_is_refused(edge, model: str):
    with openai.OpenAI(base_url=edge.v1, api_key=edge.key[:-4] + "aaaa") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.chat.completions.create(model=model, messages=QUESTION)

    assert caught.value.status_code == 401
    body = caught.value.body
    assert body["code"] == 401
    assert body["metadata"]["error_type"] == "authentication"
    assert edge.key not in str(caught.value)


def test_an_unknown_model_is_named(client: openai.OpenAI):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="nobody/nothing", messages=QUESTION)

    body = caught.value.body
    assert "nobody/nothing" in body["message"]
    assert body["metadata"]["error_type"] == "invalid_request"
    availability = body["availability"]
    assert availability["code"] == "model_not_found"
    assert availability["retryable"] is False
    assert availability["requested_models"] == ["nobody/nothing"]
    assert availability["docs_url"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 3),
        ("top_p", 1.5),
        ("top_logprobs", 21),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("presence_penalty", -3),
        ("max_tokens", 0),
        ("metadata", {str(n): "x" for n in range(17)}),
        ("metadata", {"k" * 65: "x"}),
        ("session_id", "s" * 257),
        ("provider", {"sort": "cheapest"}),
        ("messages", []),
        ("messages", "hello"),
    ],
)
def test_a_parameter_out_of_range_is_refused(client: openai.OpenAI, model: str, field: str, value: object):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            **{"model": model, "messages": QUESTION} | ({"messages": value} if field == "messages" else {}),
            extra_body={} if field == "messages" else {field: value},
        )

    body = caught.value.body
    assert body["code"] == 400
    assert body["metadata"]["error_type"] in ("invalid_request", "invalid_prompt", "string_too_long")
    assert field in body["message"]


@pytest.mark.parametrize(
    ("preferences", "filter_name"),
    [
        ({"max_price": {"prompt": "0.000001", "completion": "0.000001"}}, "max_price"),
        ({"only": ["nobody"]}, "allowed_providers"),
        ({"quantizations": ["fp6"]}, "quantization"),
    ],
)
def test_preferences_that_leave_nothing_say_which(client: openai.OpenAI, model: str, preferences, filter_name: str):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model=model, messages=QUESTION, extra_body={"provider": preferences})

    body = caught.value.body
    assert body["code"] == 404
    assert body["metadata"]["error_type"] == "not_found"
    assert body["availability"]["code"] in ("constraint_filtered", "no_endpoints")
    assert filter_name in body["availability"]["excluded_by"]


def test_errors_of_a_stream_request_come_before_it_as_json(client: openai.OpenAI):
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="nobody/nothing", messages=QUESTION, stream=True)


def test_an_unknown_path_is_not_found(client: openai.OpenAI):
    with pytest.raises(openai.NotFoundError):
        client.get("/no/such/path", cast_to=object)


def test_all_providers_limited_is_429_with_a_hint(own_edge):
    own_edge.fault("rate_limited")
    with openai_client(own_edge, max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model=own_edge.models[0], messages=QUESTION)

    body = caught.value.body
    assert body["metadata"]["error_type"] == "rate_limit_exceeded"
    assert body["availability"]["code"] == "capacity_exhausted"
    assert body["availability"]["retryable"] is True
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 60
    assert 0 < int(caught.value.response.headers["retry-after-ms"]) <= 60_000


def test_all_providers_failing_is_503_with_the_attempts(own_edge):
    own_edge.fault("server_error")
    with openai_client(own_edge, max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model=own_edge.models[0], messages=QUESTION)

    assert caught.value.status_code in (502, 503)
    body = caught.value.body
    assert body["metadata"]["error_type"] in ("provider_overloaded", "provider_unavailable")
    assert body["availability"]["code"] == "temporarily_unavailable"
    previous = body["metadata"]["previous_errors"]
    assert previous and all(set(attempt) <= {"provider", "code", "status"} for attempt in previous)


def test_a_stream_that_breaks_ends_in_a_typed_error(own_edge):
    own_edge.fault("cut")
    seen = []
    with openai_client(own_edge, max_retries=0) as client:
        with pytest.raises(openai.APIError) as caught:
            for chunk in client.chat.completions.create(
                model=own_edge.models[0], messages=QUESTION, stream=True
            ):
                seen.append(chunk)

    assert seen, "the stream had begun"
    assert caught.value.body["metadata"]["error_type"] in ("provider_unavailable", "server", "timeout")
