"""Byte-level BPE: training, and the files by which transformers and others load the result.

Every byte is a token, so any text has an encoding and comes back from it unchanged. Source: Sennrich, Haddow, Birch
(2016), and the byte alphabet of GPT-2 (Radford et al., 2019). Training is Hugging Face tokenizers'; it breaks ties by
token ids, so the same sample gives the same bytes, whatever the number of threads.

Special tokens come first. None ever arises from raw text through `encode.Encoder`; transformers' own default is to
read them where text spells them, which is what a rendered chat template needs.
"""

import json
from collections.abc import Iterable, Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from ray_jobs.tokenizer.pieces import trainable

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
CHAT_START = "<|im_start|>"
CHAT_END = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, PAD, CHAT_START, CHAT_END)

# The pattern of Llama 3's tokenizer (Meta, 2024), which is that of OpenAI's cl100k_base.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def new_tokenizer(pre_tokenizer: str) -> Tokenizer:
    """An untrained tokenizer that cuts text as the named one does."""
    tokenizer = Tokenizer(models.BPE())
    if pre_tokenizer == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    else:
        assert pre_tokenizer == "llama3", pre_tokenizer
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_LLAMA3), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


PRE_TOKENIZERS = ("gpt2", "llama3")


def cuts_as_ours(tokenizer: Tokenizer) -> bool:
    """Whether it cuts plain text into words by one of our patterns, so that long texts may be encoded in pieces."""
    described = json.loads(tokenizer.to_str())
    ours = [json.loads(new_tokenizer(name).to_str())["pre_tokenizer"] for name in PRE_TOKENIZERS]
    return described["normalizer"] is None and described["pre_tokenizer"] in ours


def train(texts: Iterable[str], vocab_size: int, pre_tokenizer: str, min_frequency: int) -> Tokenizer:
    """A tokenizer of at most `vocab_size` tokens: fewer where no pair is left that occurs `min_frequency` times."""
    tokenizer = new_tokenizer(pre_tokenizer)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(trainable(texts), trainer)  # words are counted: pieces give the same merges
    return tokenizer


def files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """What `AutoTokenizer.from_pretrained` reads, by file name."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": PAD,
        "additional_special_tokens": [CHAT_START, CHAT_END],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**9,  # the model's own limit counts
    }
    names = ("bos_token", "eos_token", "pad_token", "additional_special_tokens")
    special = {name: config[name] for name in names}
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": _json(config),
        "special_tokens_map.json": _json(special),
    }


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def decoded(data: bytes) -> str:
    """Text as tokenizers take it: what is no UTF-8 (a lone surrogate, a cut character) becomes U+FFFD."""
    return data.decode("utf-8", errors="replace")


def batches(texts: Iterable[str], num_bytes: int) -> Iterator[list[str]]:
    """Lists of texts of about that size."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= num_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
