"""The OpenAI Python client against a running engine, unchanged but for its base URL.

usage: openai_client.py URL
Every check is an assertion; prints the name of each function that passed.
"""

import sys

import openai

url = sys.argv[1]
client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
model = client.models.list().data[0].id
QUESTION = [{"role": "user", "content": "What is a vector?"}]


def chat():
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=16, temperature=0)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("length", "stop")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    return answer.choices[0].message.content


def chat_streamed_says_the_same():
    stream = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=16, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == chat(), (text, chat())
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] in ("length", "stop")
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert not any(hasattr(c, "tokenflow") for c in chunks), "chunks are exactly OpenAI's unless asked for more"


def health_is_there_when_asked_for():
    stream = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=16, stream=True, extra_body={"stream_options": {"include_health": True}}
    )
    for chunk in stream:
        told = chunk.model_extra["tokenflow"]
        assert 0 <= told["health"] <= 1 and told["rate"] >= 0 and told["paced"] in (True, False)


def completions():
    answer = client.completions.create(model=model, prompt="A vector is", max_tokens=8, temperature=0, logprobs=3)
    choice = answer.choices[0]
    assert choice.text and answer.usage.completion_tokens == len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs)
    assert all(len(top) >= 3 for top in choice.logprobs.top_logprobs)
    assert all(value <= 0 for value in choice.logprobs.token_logprobs)


def completions_streamed_and_batched():
    prompts = ["A vector is", "A string is"]
    whole = client.completions.create(model=model, prompt=prompts, max_tokens=8, temperature=0)
    parts = {0: "", 1: ""}
    for chunk in client.completions.create(model=model, prompt=prompts, max_tokens=8, temperature=0, stream=True):
        for choice in chunk.choices:
            parts[choice.index] += choice.text
    assert parts == {c.index: c.text for c in whole.choices}


def chat_logprobs():
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=4, temperature=0, logprobs=True, top_logprobs=2)
    content = answer.choices[0].logprobs.content
    assert 1 <= len(content) <= 4 and all(len(token.top_logprobs) == 2 for token in content)
    assert all(token.token == token.top_logprobs[0].token for token in content), "greedy takes the likeliest"


def seeds_repeat():
    ask = lambda seed: client.completions.create(model=model, prompt="Once", max_tokens=24, temperature=1.0, seed=seed).choices[0].text
    assert ask(1) == ask(1)
    assert len({ask(seed) for seed in range(4)}) > 1


def stop_strings_end_the_text():
    text = client.completions.create(model=model, prompt="A vector is", max_tokens=32, temperature=0).choices[0].text
    stop = text[len(text) // 2 :][:3]
    answer = client.completions.create(model=model, prompt="A vector is", max_tokens=32, temperature=0, stop=[stop]).choices[0]
    assert answer.finish_reason == "stop" and answer.text == text[: text.index(stop)], (text, stop, answer.text)


def refused(exception, param, **arguments):
    try:
        client.chat.completions.create(**{"model": model, "messages": QUESTION, **arguments})
    except exception as error:
        body = error.body
        assert set(body) >= {"message", "type", "param", "code"}, body
        assert body["code"] == error.status_code and body["param"] == param, body
        assert len(body["message"]) > 10
        return
    raise AssertionError(f"{arguments} was accepted")


def errors_have_openais_shape():
    refused(openai.NotFoundError, "model", model="nope")
    refused(openai.BadRequestError, "temperature", temperature=-1)
    refused(openai.BadRequestError, "top_p", top_p=3)
    refused(openai.BadRequestError, "max_tokens", max_tokens=10**9)
    refused(openai.BadRequestError, "messages", messages=[])
    too_long = [{"role": "user", "content": "word " * 50_000}]
    refused(openai.BadRequestError, "messages", messages=too_long)
    chat()


def leaving_early_is_fine():
    for chunk in client.chat.completions.create(model=model, messages=QUESTION, max_tokens=200, stream=True):
        break
    chat()


for check in (
    chat,
    chat_streamed_says_the_same,
    health_is_there_when_asked_for,
    completions,
    completions_streamed_and_batched,
    chat_logprobs,
    seeds_repeat,
    stop_strings_end_the_text,
    errors_have_openais_shape,
    leaving_early_is_fine,
):
    check()
    print("ok", check.__name__)
