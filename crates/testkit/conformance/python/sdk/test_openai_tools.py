"""Tool calls: offered, forced, several at once, streamed, and answered."""

import json

import openai

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a town.",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["town", "days"],
            "additionalProperties": False,
        },
    },
}
TIDE = {
    "type": "function",
    "function": {
        "name": "tide",
        "description": "The next high tide.",
        "parameters": {"type": "object", "properties": {"harbour": {"type": "string"}}, "required": ["harbour"]},
    },
}
QUESTION = [{"role": "user", "content": "What is the weather and the tide in Aberdeen?"}]


def test_a_forced_tool_is_called(client: openai.OpenAI, model: str):
    answer = client.chat.completions.create(
        model=model,
        messages=QUESTION,
        tools=[TIDE, WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
    )

    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.id and call.type == "function" and call.function.name == "weather"
    assert {"town", "days"} <= set(json.loads(call.function.arguments))


def test_tools_can_be_called_in_parallel(client: openai.OpenAI, model: str):
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, tools=[TIDE, WEATHER], tool_choice="required", parallel_tool_calls=True
    )

    calls = answer.choices[0].message.tool_calls
    assert {call.function.name for call in calls} == {"tide", "weather"}
    assert len({call.id for call in calls}) == 2
    assert answer.choices[0].finish_reason == "tool_calls"


def test_streamed_calls_can_be_put_together(client: openai.OpenAI, model: str):
    with client.chat.completions.stream(
        model=model, messages=QUESTION, tools=[TIDE, WEATHER], tool_choice="required", parallel_tool_calls=True
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()

    calls = final.choices[0].message.tool_calls
    assert {call.function.name for call in calls} == {"tide", "weather"}
    for call in calls:
        assert isinstance(json.loads(call.function.arguments), dict)
    assert final.choices[0].finish_reason == "tool_calls"


def test_no_tool_is_called_when_none_is_wanted(client: openai.OpenAI, model: str):
    answer = client.chat.completions.create(model=model, messages=QUESTION, tools=[TIDE], tool_choice="none")

    assert answer.choices[0].message.content
    assert not answer.choices[0].message.tool_calls


def test_results_of_tools_are_taken_back(client: openai.OpenAI, edge):
    """The whole round on every provider, so that each upstream dialect translates calls and results."""
    for sim in edge.sims:
        only = {"provider": {"only": [sim.provider]}}
        model = edge.model_at(sim.provider)
        first = client.chat.completions.create(
            model=model,
            messages=QUESTION,
            tools=[TIDE, WEATHER],
            tool_choice="required",
            parallel_tool_calls=True,
            extra_body=only,
        )
        asked = first.choices[0].message
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"answer": call.function.name})}
            for call in asked.tool_calls
        ]
        second = client.chat.completions.create(
            model=model,
            messages=[*QUESTION, asked.model_dump(exclude_none=True), *results],
            tools=[TIDE, WEATHER],
            extra_body=only,
        )
        assert second.choices[0].finish_reason in ("stop", "tool_calls"), sim.provider
