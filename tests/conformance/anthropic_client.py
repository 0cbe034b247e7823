"""The Anthropic Python client against a running engine, unchanged but for its base URL.

usage: anthropic_client.py URL
The engine must run with --enable-auto-tool-choice --tool-call-parser hermes. Every check is an assertion; prints the name of each function that passed.
"""

import json
import sys
import urllib.request

import anthropic

url = sys.argv[1]
client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
model = json.load(urllib.request.urlopen(f"{url}/v1/models"))["data"][0]["id"]
QUESTION = [{"role": "user", "content": "What is a vector?"}]
WEATHER = {"type": "object", "properties": {"unit": {"enum": ["celsius", "fahrenheit"]}}, "required": ["unit"], "additionalProperties": False}
GREEDY = {"temperature": 0}
TOOLS = [{"name": "get_weather", "description": "Tells the weather", "input_schema": WEATHER}]


def ask(**arguments):
    return client.messages.create(**{"model": model, "messages": QUESTION, "max_tokens": 16, "extra_body": GREEDY, **arguments})


def messages():
    answer = ask(system="Be brief.")
    assert answer.type == "message" and answer.role == "assistant" and answer.id.startswith("msg_")
    assert answer.content[0].type == "text" and answer.content[0].text
    assert answer.stop_reason in ("max_tokens", "end_turn")
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0


def a_stream_says_the_same():
    with client.messages.stream(model=model, messages=QUESTION, max_tokens=16, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == ask().content[0].text == final.content[0].text
    assert final.usage.output_tokens > 0 and final.stop_reason in ("max_tokens", "end_turn")


def stop_sequences_end_the_text():
    text = ask(max_tokens=32).content[0].text
    stop = text[len(text) // 2 :][:3]
    answer = ask(max_tokens=32, stop_sequences=[stop])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", stop), answer
    assert answer.content[0].text == text[: text.index(stop)]


def tools_are_called_and_their_results_go_back():
    answer = ask(tools=TOOLS, tool_choice={"type": "tool", "name": "get_weather"}, max_tokens=200)
    [use] = [block for block in answer.content if block.type == "tool_use"]
    assert answer.stop_reason == "tool_use" and use.name == "get_weather" and use.input["unit"] in ("celsius", "fahrenheit"), answer
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "Rain"}]}
    history = QUESTION + [{"role": "assistant", "content": [use.model_dump()]}, {"role": "user", "content": [result]}]
    assert ask(messages=history, tools=TOOLS).content


def streamed_tools_add_up():
    with client.messages.stream(
        model=model, messages=QUESTION, max_tokens=200, tools=TOOLS, tool_choice={"type": "any", "disable_parallel_tool_use": True}
    ) as stream:
        final = stream.get_final_message()
    [use] = final.content
    assert use.type == "tool_use" and use.input["unit"] in ("celsius", "fahrenheit"), final


def tokens_are_counted():
    count = client.messages.count_tokens(model=model, messages=QUESTION, system="Be brief.")
    assert count.input_tokens == ask(system="Be brief.").usage.input_tokens


def refused(exception, kind, **arguments):
    try:
        ask(**arguments)
    except exception as error:
        assert error.body["type"] == "error" and error.body["error"]["type"] == kind and len(error.body["error"]["message"]) > 10, error.body
        return
    raise AssertionError(f"{arguments} was accepted")


def errors_have_anthropics_shape():
    refused(anthropic.NotFoundError, "not_found_error", model="nope")
    refused(anthropic.BadRequestError, "invalid_request_error", extra_body={"temperature": -1})
    refused(anthropic.BadRequestError, "invalid_request_error", messages=[])
    image = [{"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/"}}]
    refused(anthropic.BadRequestError, "invalid_request_error", messages=[{"role": "user", "content": image}])
    messages()


for check in (
    messages,
    a_stream_says_the_same,
    stop_sequences_end_the_text,
    tools_are_called_and_their_results_go_back,
    streamed_tools_add_up,
    tokens_are_counted,
    errors_have_anthropics_shape,
):
    check()
    print("ok", check.__name__)
