"""What the SDK's own retries do with our answers: it repeats only when that can help, and when we say."""

import time

import httpx2
import openai
import pytest

QUESTION = [{"role": "user", "content": "Hello?"}]


class Counter:
    """An SDK client that records every request it really sends."""

    def __init__(self, edge, **options):
        self.sent: list[float] = []
        self.retry_counts: list[str] = []
        self.answers: list[httpx2.Response] = []
        self.client = openai.OpenAI(
            base_url=edge.v1,
            api_key=edge.key,
            http_client=openai.DefaultHttpxClient(
                event_hooks={"request": [self._request], "response": [self.answers.append]}
            ),
            **options,
        )

    def _request(self, request: httpx2.Request) -> None:
        self.sent.append(time.monotonic())
        self.retry_counts.append(request.headers["x-stainless-retry-count"])


def test_a_request_that_cannot_succeed_is_sent_once(own_edge):
    counter = Counter(own_edge)
    with pytest.raises(openai.BadRequestError):
        counter.client.chat.completions.create(model="nobody/nothing", messages=QUESTION)

    assert len(counter.sent) == 1


def test_after_our_own_attempts_the_sdk_is_told_not_to_repeat(own_edge):
    own_edge.fault("server_error")
    counter = Counter(own_edge)
    with pytest.raises(openai.InternalServerError):
        counter.client.chat.completions.create(model=own_edge.models[0], messages=QUESTION)

    assert counter.answers[0].headers["x-should-retry"] == "false"
    assert len(counter.sent) == 1


def test_a_short_wait_is_waited_out(own_edge):
    own_edge.fault("rate_limited_briefly")
    counter = Counter(own_edge, max_retries=3)
    heal_after_first_answer(counter, own_edge)

    answer = counter.client.chat.completions.create(model=own_edge.models[0], messages=QUESTION)

    assert answer.choices[0].message.content
    assert counter.answers[0].status_code == 429
    assert counter.answers[0].headers.get("x-should-retry") != "false"
    hint = int(counter.answers[0].headers["retry-after-ms"]) / 1000
    assert counter.sent[1] - counter.sent[0] >= hint * 0.9
    assert counter.retry_counts[:2] == ["0", "1"]


def heal_after_first_answer(counter: Counter, edge) -> None:
    def heal(_: httpx2.Response) -> None:
        if len(counter.answers) == 1:
            edge.fault("none")

    counter.client._client.event_hooks["response"].append(heal)
