"""Chat templates: transformers renders what their formats ask for, and finds the assistant's tokens."""

from pathlib import Path
from typing import Any

import pytest

from ray_jobs.tokenizer import bpe, sentence_pieces
from ray_jobs.tokenizer.chat import ChatTemplate
from ray_jobs.tokenizer.output_files import tokenizer_files
from ray_jobs.tokenizer.special import special_tokens_of
from tests.tokenizer.test_sentence_pieces import MODELS

BYTE_LEVEL = bpe.train(["system user assistant Hello there, how are you? " * 9], 330, "gpt2", 2)
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi there."},
    {"role": "user", "content": "How are you? "},
    {"role": "assistant", "content": "Fine."},
]
# The reference code of Llama 2 puts system into the first user turn and strips what is said; ChatML keeps all as it is.
CHATML = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    "<|im_start|>assistant\nHi there.<|im_end|>\n<|im_start|>user\nHow are you? <|im_end|>\n"
    "<|im_start|>assistant\nFine.<|im_end|>\n"
)
LLAMA2 = "BOS[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHello [/INST] Hi there. EOSBOS[INST] How are you? [/INST] Fine. EOS"


def loaded(folder: Path, kind: str, template: ChatTemplate) -> Any:
    from transformers import AutoTokenizer

    if kind == "bpe":
        files = bpe.files(BYTE_LEVEL, template)
    else:
        model = MODELS["sentencepiece-bpe"]
        files = tokenizer_files(sentence_pieces.to_tokenizer(model), template, model)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return AutoTokenizer.from_pretrained(folder)


def rendered(tokenizer: Any, messages: list[dict[str, str]], **options: bool) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece-bpe"])
def test_chatml_is_rendered_as_its_format_says(tmp_path: Path, kind: str) -> None:
    tokenizer = loaded(tmp_path, kind, "chatml")
    assert rendered(tokenizer, MESSAGES) == CHATML
    asked = rendered(tokenizer, MESSAGES[:2], add_generation_prompt=True)
    assert asked == CHATML[: CHATML.index("Hi there")]


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece-bpe"])
def test_llama2_is_rendered_as_its_reference_code_does(tmp_path: Path, kind: str) -> None:
    tokenizer = loaded(tmp_path, kind, "llama2")
    wanted = LLAMA2.replace("BOS", tokenizer.bos_token).replace("EOS", tokenizer.eos_token)
    assert rendered(tokenizer, MESSAGES) == wanted
    assert rendered(tokenizer, MESSAGES[:2], add_generation_prompt=True) == wanted[: wanted.index(" Hi there")]
    assert rendered(tokenizer, MESSAGES[1:2]) == f"{tokenizer.bos_token}[INST] Hello [/INST]"


@pytest.mark.parametrize("messages", [MESSAGES[2:], MESSAGES[1:2] * 2, [{"role": "tool", "content": "x"}]])
def test_llama2_refuses_turns_that_it_has_no_form_for(tmp_path: Path, messages: list[dict[str, str]]) -> None:
    from jinja2.exceptions import TemplateError

    with pytest.raises(TemplateError, match="take turns"):
        rendered(loaded(tmp_path, "bpe", "llama2"), messages)


@pytest.mark.parametrize("template", ["chatml", "llama2"])
@pytest.mark.parametrize("kind", ["bpe", "sentencepiece-bpe"])
def test_the_mask_holds_what_the_assistant_said_with_the_end_of_its_turn(
    tmp_path: Path, kind: str, template: ChatTemplate
) -> None:
    tokenizer = loaded(tmp_path, kind, template)
    encoded = tokenizer.apply_chat_template(MESSAGES, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = encoded["input_ids"], encoded["assistant_masks"]
    said = tokenizer.decode([token for token, inside in zip(ids, mask, strict=True) if inside])
    end = "<|im_end|>" if template == "chatml" else f" {tokenizer.eos_token}"
    assert said.replace(" ", "") == f"Hi there.{end}Fine.{end}".replace(" ", "")
    end_id = tokenizer.convert_tokens_to_ids(end.strip())
    assert [ids[place] for place in range(len(ids)) if mask[place] and mask[place + 1 : place + 2] != [1]] == [
        end_id,
        end_id,
    ]


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece-bpe"])
def test_turns_begin_and_end_with_one_token_each_and_padding_ends_nothing(tmp_path: Path, kind: str) -> None:
    tokenizer = loaded(tmp_path, kind, "chatml")
    ids = tokenizer.apply_chat_template(MESSAGES)["input_ids"]
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == 5
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 5
    assert tokenizer.pad_token_id not in {tokenizer.eos_token_id, tokenizer.bos_token_id, *ids}


def test_special_tokens_are_told_by_kind() -> None:
    assert special_tokens_of(BYTE_LEVEL).names[:2] == ("<|endoftext|>", "<|pad|>")
    assert special_tokens_of(sentence_pieces.to_tokenizer(MODELS["sentencepiece-bpe"])).end == "</s>"
