"""Chat templates in Jinja, as transformers, vLLM and llama.cpp render them. They name the tokenizer's own tokens.

What the assistant says stands between generation marks, by which transformers' `return_assistant_tokens_mask` finds the
tokens to train on: its words and the token that ends its turn.
"""

from typing import Literal, TypeAlias

ChatTemplate: TypeAlias = Literal["chatml", "llama2"]

_CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}
{%- else -%}
{{- message['content'] + '<|im_end|>' -}}
{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""OpenAI's Chat Markup Language (2023): a header and an end for every turn, of any role."""

_LLAMA2 = """\
{%- if messages and messages[0]['role'] == 'system' -%}
{%- set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' -%}
{%- set turns = messages[1:] -%}
{%- else -%}
{%- set system = '' -%}
{%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) or message['role'] not in ['user', 'assistant'] -%}
{{- raise_exception('after one system message at most, user and assistant take turns, the user first') -}}
{%- endif -%}
{%- if message['role'] == 'user' -%}
{{- bos_token + '[INST] ' + (system if loop.first else '') + message['content'].strip() + ' [/INST]' -}}
{%- else -%}
{%- generation -%}{{- ' ' + message['content'].strip() + ' ' + eos_token -}}{%- endgeneration -%}
{%- endif -%}
{%- endfor -%}
"""
"""Llama 2's dialogues (Touvron et al., 2023, arXiv:2307.09288, and its reference code `chat_completion`)."""

CHAT_TEMPLATES: dict[ChatTemplate, str] = {"chatml": _CHATML, "llama2": _LLAMA2}
