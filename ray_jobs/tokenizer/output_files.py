"""The files of a tokenizer, by name, as `AutoTokenizer.from_pretrained` and `sentencepiece` read them."""

import json

from tokenizers import Tokenizer

from ray_jobs.tokenizer.chat import CHAT_TEMPLATES, ChatTemplate
from ray_jobs.tokenizer.special import CHAT_END, CHAT_START, special_tokens_of


def tokenizer_files(
    tokenizer: Tokenizer, chat_template: ChatTemplate = "chatml", sentencepiece_model: bytes | None = None
) -> dict[str, bytes]:
    """tokenizer.json, tokenizer_config.json, special_tokens_map.json, chat_template.jinja, and tokenizer.model where
    there is one."""
    special = special_tokens_of(tokenizer)
    roles = {
        "bos_token": special.begin,
        "eos_token": special.end,
        "pad_token": special.pad,
        **({"unk_token": special.unknown} if special.unknown else {}),
        "additional_special_tokens": [CHAT_START, CHAT_END],
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **roles,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**9,  # the model's own limit counts
    }
    files = {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": _json(config),
        "special_tokens_map.json": _json(roles),
        "chat_template.jinja": CHAT_TEMPLATES[chat_template].encode(),
    }
    if sentencepiece_model is not None:
        files["tokenizer.model"] = sentencepiece_model
    return files


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
