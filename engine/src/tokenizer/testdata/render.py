#!/usr/bin/env python3
"""Renders the cases below with transformers and writes templates.json, which the tests compare with (needs transformers).

The templates are ours; each uses what some family of published templates uses.
"""
import json, pathlib
from transformers.utils.chat_template_utils import render_jinja_template

CHAT = [
    {"role": "system", "content": "You are <brief> & exact."},
    {"role": "user", "content": "Say \"hi\" to Zoë 👋\n"},
    {"role": "assistant", "content": "<think>\nshort\n</think>\n\nhi Zoë"},
    {"role": "user", "content": "  and again?  "},
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}

CASES = {
    "chatml": dict(template="{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
                            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"),
    "header and trim": dict(template="""{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""),
    "blocks on lines of their own": dict(template="""{% if messages[0].role == 'system' %}
    {% set system = messages[0].content %}
    {% set rest = messages[1:] %}
{% else %}
    {% set rest = messages %}
{% endif %}
{{ bos_token }}{% for m in rest %}
  {% if m.role == 'user' %}
[INST] {% if loop.first and system is defined %}{{ system + '\\n\\n' }}{% endif %}{{ m.content.strip() }} [/INST]
  {% elif loop.last %}
last
  {% else %}
{{ m.content }}{{ eos_token }}
  {% endif %}
{% endfor %}
"""),
    "thinking split off": dict(template="""{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is defined and message.reasoning_content is not none %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in message.content %}
            {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
            {%- set reasoning = message.content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- message.role ~ ': ' ~ content ~ ' (' ~ reasoning ~ ', last user ' ~ ns.last ~ ')\\n' }}
    {%- else %}
        {{- message.role ~ ': ' ~ message.content ~ '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}
    {{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
""", extra={"enable_thinking": False}),
    "json": dict(template="""{{ messages|tojson }}
{{ messages[1:3]|tojson(indent=2) }}
{{ numbers|tojson }} {{ numbers|tojson(separators=(',', ':')) }} {{ {'b': [], 'a': {}}|tojson(sort_keys=true) }}
{{ messages[1].content|tojson(ensure_ascii=true) }}
""", extra={"numbers": {"i": 3, "f": 1.5, "whole": 2.0, "no": None, "yes": True, "list": [1, [2, "3"]]}}),
    "loop controls and macros": dict(template="""{%- macro line(m, mark='-') -%}
{{ mark }} {{ m.role | upper }}: {{ m.content | replace('\\n', ' ') }}
{% endmacro -%}
{% for m in messages %}
{% if m.role == 'system' %}{% continue %}{% endif %}
{{ line(m, mark='*' if loop.index is even else '+') }}
{%- if loop.index0 == 2 %}{% break %}{% endif %}
{% endfor %}
{{ messages | map(attribute='role') | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}
"""),
    "generation marks": dict(template="""{% for m in messages %}
{%- if m.role == 'assistant' %}
    {%- generation %}
    {{- m.content + eos_token }}
    {%- endgeneration %}
{%- else %}
    {{- '[' + m.content + ']' }}
{%- endif %}
{%- endfor %}
"""),
    "dictionaries": dict(template="""{% for m in messages %}{% for k, v in m.items() %}{{ k }}={{ v|length }};{% endfor %}{% endfor %}
{%- set names = dict(system='S', user='U') %} {{ names.get('user') }}{{ names.get('tool', '?') }}{{ names['system'] }}
{%- for k in names.keys() %} {{ k }}{% endfor %} {{ messages[-1]['content'].split() | join('+') }} {{ "%s/%d" | format("a", 3) }} {{ 7 // 2 }} {{ 7 % 4 }} {{ [1,2,3][-1] }} {{ 'x' * 3 }} {{ none }} {{ true }} {{ 1.0 }} {{ missing }}|
"""),
}

cases = []
for name, case in CASES.items():
    for prompt in (True, False):
        extra = case.get("extra", {})
        rendered, _ = render_jinja_template([CHAT], chat_template=case["template"], add_generation_prompt=prompt, **SPECIAL, **extra)
        cases.append({"name": name, "template": case["template"], "messages": CHAT, "extra": extra,
                      "add_generation_prompt": prompt, "expected": rendered[0]})
pathlib.Path(__file__).with_name("templates.json").write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n")
