"""A caller who leaves stops the upstream."""

import time

import openai

from conftest import openai_client

QUESTION = [{"role": "user", "content": "Count very slowly, for as long as you can."}]


def test_leaving_a_stream_closes_the_upstream(own_edge):
    own_edge.fault("slow_stream")
    with openai_client(own_edge) as client:
        stream = client.chat.completions.create(model=own_edge.models[0], messages=QUESTION, stream=True)
        first = next(stream)
        stream.close()

        record = eventually(lambda: generation(own_edge, first.id))
        assert record["cancelled"] is True
        assert record["streamed"] is True
    assert eventually(lambda: sum(sim.stats()["disconnects"] for sim in own_edge.sims) == 1)


def test_a_timeout_of_the_client_is_a_cancellation_too(own_edge):
    own_edge.fault("silent")
    with openai_client(own_edge, timeout=0.5, max_retries=0) as client:
        try:
            client.chat.completions.create(model=own_edge.models[0], messages=QUESTION, stream=True)
        except openai.APITimeoutError:
            pass
    assert eventually(lambda: all(sim.stats()["active_requests"] == 0 for sim in own_edge.sims))


def generation(edge, identifier: str) -> dict | None:
    with openai_client(edge) as client:
        try:
            return client.get("/generation", cast_to=object, options={"params": {"id": identifier}})["data"]
        except openai.NotFoundError:
            return None


def eventually(condition, within_seconds: float = 5):
    """What the condition returns once it is true; fails when it does not become true in time."""
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"not true within {within_seconds} s")
