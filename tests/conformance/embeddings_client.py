"""Embeddings by the OpenAI Python client and by LangChain against an engine that serves a model which embeds.

usage: embeddings_client.py URL
Every check is an assertion; prints the name of each function that passed.
"""

import math
import sys

import openai
from langchain_openai import OpenAIEmbeddings

url = sys.argv[1]
client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
model = client.models.list().data[0].id


def length(vector):
    return math.sqrt(sum(x * x for x in vector))


def vectors_come_as_floats_and_as_base64():
    # The client asks for base64 unless told otherwise.
    packed = client.embeddings.create(model=model, input=["one", "two"]).data
    floats = client.embeddings.create(model=model, input=["one", "two"], encoding_format="float").data
    assert [d.index for d in packed] == [0, 1] and packed[0].embedding != packed[1].embedding
    for a, b in zip(packed, floats):
        assert max(abs(x - y) for x, y in zip(a.embedding, b.embedding, strict=True)) < 1e-6
        assert abs(length(a.embedding) - 1) < 1e-3


def fewer_dimensions_have_length_one():
    vector = client.embeddings.create(model=model, input="one", dimensions=8).data[0].embedding
    assert len(vector) == 8 and abs(length(vector) - 1) < 1e-3


def langchain_embeds():
    embeddings = OpenAIEmbeddings(base_url=f"{url}/v1", api_key="none", model=model, check_embedding_ctx_length=False)
    [one, two] = embeddings.embed_documents(["one", "two"])
    assert one != two and embeddings.embed_query("one") == one


for check in (vectors_come_as_floats_and_as_base64, fewer_dimensions_have_length_one, langchain_embeds):
    check()
    print("ok", check.__name__)
