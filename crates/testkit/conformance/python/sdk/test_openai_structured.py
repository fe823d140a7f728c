"""Structured output: `parse` with a model of the caller, strict schemas, plain JSON mode."""

import json

import openai
from pydantic import BaseModel


class Harbour(BaseModel):
    name: str
    berths: int
    open: bool
    languages: list[str]


QUESTION = [{"role": "user", "content": "Describe a harbour."}]
PLACE = {
    "type": "json_schema",
    "json_schema": {
        "name": "place",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "depth": {"type": "number"}},
            "required": ["name", "depth"],
            "additionalProperties": False,
        },
    },
}


def test_parse_returns_the_callers_type(client: openai.OpenAI, model: str):
    answer = client.chat.completions.parse(model=model, messages=QUESTION, response_format=Harbour)

    assert isinstance(answer.choices[0].message.parsed, Harbour)


def test_parse_works_while_streaming(client: openai.OpenAI, model: str):
    with client.chat.completions.stream(model=model, messages=QUESTION, response_format=Harbour) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()

    assert isinstance(final.choices[0].message.parsed, Harbour)


def test_a_schema_is_kept_by_every_dialect(client: openai.OpenAI, edge):
    for sim in edge.sims:
        model = edge.model_at(sim.provider)
        answer = client.chat.completions.create(
            model=model,
            messages=QUESTION,
            response_format=PLACE,
            extra_body={"provider": {"only": [sim.provider]}},
        )
        place = json.loads(answer.choices[0].message.content)
        assert set(place) == {"name", "depth"}, sim.provider


def test_json_mode_gives_an_object(client: openai.OpenAI, model: str):
    answer = client.chat.completions.create(model=model, messages=QUESTION, response_format={"type": "json_object"})

    assert isinstance(json.loads(answer.choices[0].message.content), dict)
