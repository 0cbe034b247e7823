"""Tools, structured outputs, reasoning and responses by the OpenAI Python client against a running engine, unchanged but for its base URL.

usage: openai_tools.py URL
The engine must run with --enable-auto-tool-choice --tool-call-parser hermes. Every check is an assertion; prints the name of each function that passed.
"""

import json
import sys
from typing import Literal

import openai
from pydantic import BaseModel

url = sys.argv[1]
client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
model = client.models.list().data[0].id
QUESTION = [{"role": "user", "content": "What is the weather in Ulm?"}]
WEATHER = {
    "type": "object",
    "properties": {"unit": {"enum": ["celsius", "fahrenheit"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["unit", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Tells the weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "give_up"}},
]
NAMED = {"type": "function", "function": {"name": "get_weather"}}


def is_weather(arguments):
    value = json.loads(arguments)
    return value["unit"] in ("celsius", "fahrenheit") and 1 <= value["days"] <= 9 and len(value) == 2


def ask(**arguments):
    return client.chat.completions.create(**{"model": model, "messages": QUESTION, "tools": TOOLS, "max_tokens": 300, **arguments})


def a_named_function_gets_arguments_of_its_schema():
    for seed in range(5):
        choice = ask(tool_choice=NAMED, seed=seed, temperature=1.0).choices[0]
        assert choice.finish_reason == "tool_calls" and choice.message.content is None, choice
        [call] = choice.message.tool_calls
        assert call.type == "function" and call.id and call.function.name == "get_weather" and is_weather(call.function.arguments), call


def required_calls_are_streamed():
    for seed in range(3):
        calls, finish = {}, None
        for chunk in ask(tool_choice="required", parallel_tool_calls=False, stream=True, seed=seed, temperature=1.0):
            finish = chunk.choices[0].finish_reason or finish
            for delta in chunk.choices[0].delta.tool_calls or []:
                if delta.index not in calls:
                    assert delta.id and delta.type == "function" and delta.function.name
                    calls[delta.index] = [delta.function.name, ""]
                calls[delta.index][1] += delta.function.arguments or ""
        assert finish == "tool_calls" and list(calls) == [0], (finish, calls)
        name, arguments = calls[0]
        assert (name == "get_weather" and is_weather(arguments)) or (name == "give_up" and json.loads(arguments) == {}), calls


def auto_answers_in_text_or_calls():
    choice = ask(max_tokens=20).choices[0]
    assert choice.message.content is not None or choice.message.tool_calls


def results_of_calls_go_back():
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"unit": "celsius", "days": 1}'}}
    history = QUESTION + [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain"},
    ]
    assert ask(messages=history, max_tokens=8, tool_choice="none").choices[0].message.content


class Forecast(BaseModel):
    weather: Literal["sun", "rain"]
    certain: bool


def structured_outputs_are_parsed():
    answer = client.chat.completions.parse(model=model, messages=QUESTION, response_format=Forecast, max_tokens=800)
    assert isinstance(answer.choices[0].message.parsed, Forecast), answer
    tool = openai.pydantic_function_tool(Forecast)
    answer = client.chat.completions.parse(
        model=model, messages=QUESTION, tools=[tool], max_tokens=800, tool_choice={"type": "function", "function": {"name": "Forecast"}}
    )
    assert isinstance(answer.choices[0].message.tool_calls[0].function.parsed_arguments, Forecast), answer


def the_clients_own_stream_helper_works():
    with client.chat.completions.stream(
        model=model, messages=QUESTION, response_format=Forecast, max_tokens=800, stream_options={"include_usage": True}
    ) as stream:
        kinds = {event.type for event in stream}
        assert "content.delta" in kinds and "content.done" in kinds, kinds
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Forecast)


def responses():
    answer = client.responses.create(model=model, input="What is a vector?", instructions="Be brief.", max_output_tokens=16, temperature=0)
    assert answer.object == "response" and answer.id.startswith("resp_") and answer.output_text
    assert answer.status in ("completed", "incomplete") and answer.usage.output_tokens <= 16
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    again = client.responses.create(
        model=model, input=[{"role": "user", "content": "What is a vector?"}], instructions="Be brief.", max_output_tokens=16, temperature=0
    )
    assert again.output_text == answer.output_text


def responses_streamed():
    stream = client.responses.create(model=model, input="What is a vector?", max_output_tokens=16, temperature=0, stream=True)
    events = list(stream)
    assert [e.type for e in events][:2] == ["response.created", "response.in_progress"]
    assert events[-1].type in ("response.completed", "response.incomplete")
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == events[-1].response.output_text and text


def responses_call_functions_and_keep_schemas():
    tools = [{"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}]
    answer = client.responses.create(
        model=model, input="Weather?", tools=tools, tool_choice={"type": "function", "name": "get_weather"}, max_output_tokens=300
    )
    [call] = [item for item in answer.output if item.type == "function_call"]
    assert call.name == "get_weather" and is_weather(call.arguments) and call.call_id, call
    history = [{"role": "user", "content": "Weather?"}, call.model_dump(), {"type": "function_call_output", "call_id": call.call_id, "output": "Rain"}]
    assert client.responses.create(model=model, input=history, max_output_tokens=8).output_text
    parsed = client.responses.parse(model=model, input="Weather?", text_format=Forecast, max_output_tokens=200)
    assert isinstance(parsed.output_parsed, Forecast), parsed


def responses_refuse_what_is_not_stored():
    try:
        client.responses.create(model=model, input="x", previous_response_id="resp_1")
    except openai.BadRequestError as error:
        assert error.body["param"] == "previous_response_id", error.body
    else:
        raise AssertionError("previous_response_id was accepted")


for check in (
    a_named_function_gets_arguments_of_its_schema,
    required_calls_are_streamed,
    auto_answers_in_text_or_calls,
    results_of_calls_go_back,
    structured_outputs_are_parsed,
    the_clients_own_stream_helper_works,
    responses,
    responses_streamed,
    responses_call_functions_and_keep_schemas,
    responses_refuse_what_is_not_stored,
):
    check()
    print("ok", check.__name__)
