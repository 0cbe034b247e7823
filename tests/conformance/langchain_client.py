"""LangChain's OpenAI chat model against a running engine, unchanged but for its base URL.

usage: langchain_client.py URL
The engine must run with --enable-auto-tool-choice --tool-call-parser hermes. Every check is an assertion; prints the name of each function that passed.
"""

import asyncio
import sys
from typing import Literal

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

url = sys.argv[1]
chat = ChatOpenAI(base_url=f"{url}/v1", api_key="none", model="tokenflow-demo", max_tokens=800, temperature=0, max_retries=0)
QUESTION = [SystemMessage("Be brief."), HumanMessage("What is a vector?")]


class Forecast(BaseModel):
    """What the weather will be."""

    weather: Literal["sun", "rain"]
    certain: bool


@tool
def get_weather(unit: Literal["celsius", "fahrenheit"]) -> str:
    """Tells the weather."""
    return f"20 degrees {unit}"


def invoke_and_stream_say_the_same():
    brief = chat.bind(max_tokens=16)
    answer = brief.invoke(QUESTION)
    assert answer.content and answer.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.content for chunk in brief.stream(QUESTION)) == answer.content


def batches_and_async_calls_work():
    brief = chat.bind(max_tokens=8)
    answers = brief.batch([QUESTION, QUESTION])
    assert answers[0].content == answers[1].content == asyncio.run(brief.ainvoke(QUESTION)).content


def bound_tools_are_called():
    answer = chat.bind_tools([get_weather], tool_choice="get_weather").invoke(QUESTION)
    [call] = answer.tool_calls
    assert call["name"] == "get_weather" and call["args"]["unit"] in ("celsius", "fahrenheit"), answer
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    assert isinstance(chat.bind(max_tokens=8).invoke(QUESTION + [answer, result]), AIMessage)


def streamed_calls_add_up():
    whole = None
    for chunk in chat.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False).stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    [call] = whole.tool_calls
    assert call["name"] == "get_weather" and call["args"]["unit"] in ("celsius", "fahrenheit"), whole


def structured_outputs_are_objects():
    for method in ("json_schema", "function_calling"):
        assert isinstance(chat.with_structured_output(Forecast, method=method).invoke(QUESTION), Forecast), method


for check in (
    invoke_and_stream_say_the_same,
    batches_and_async_calls_work,
    bound_tools_are_called,
    streamed_calls_add_up,
    structured_outputs_are_objects,
):
    check()
    print("ok", check.__name__)
