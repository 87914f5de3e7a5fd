"""Byte-level BPE: training, and the tokenizer that `tokenizers` and transformers load.

Every byte is a token, so any text has an encoding and comes back from it unchanged. Source: Sennrich, Haddow, Birch
(2016), and the byte alphabet of GPT-2 (Radford et al., 2019). `merging` learns the merges; `reference_bpe` says how.
"""

import json
from collections.abc import Iterable, Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from ray_jobs.tokenizer import merging
from ray_jobs.tokenizer.chat import ChatTemplate
from ray_jobs.tokenizer.counting import WordCounter
from ray_jobs.tokenizer.merges import byte_alphabet
from ray_jobs.tokenizer.merging import Words
from ray_jobs.tokenizer.output_files import tokenizer_files
from ray_jobs.tokenizer.special import BYTE_LEVEL, added
from ray_jobs.tokenizer.splitting import Pattern

END_OF_TEXT, PAD = BYTE_LEVEL.end, BYTE_LEVEL.pad
SPECIAL_TOKENS = BYTE_LEVEL.names

PATTERNS = {"gpt2": Pattern.GPT2, "llama3": Pattern.LLAMA3}
"""How text is cut into words, by the name of the pre-tokenizer."""
PRE_TOKENIZERS = tuple(PATTERNS)

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


def pre_tokenizer_of(tokenizer: Tokenizer) -> str | None:
    """Which of ours cuts text into words as this tokenizer does. None where none does, or text is changed before."""
    described = json.loads(tokenizer.to_str())
    if described["normalizer"] is not None:
        return None
    ours = {name: json.loads(new_tokenizer(name).to_str())["pre_tokenizer"] for name in PRE_TOKENIZERS}
    return next((name for name, pre_tokenizer in ours.items() if described["pre_tokenizer"] == pre_tokenizer), None)


def train(texts: Iterable[str], vocab_size: int, pre_tokenizer: str, min_frequency: int) -> Tokenizer:
    """A tokenizer of at most `vocab_size` tokens: fewer where no pair is left that occurs `min_frequency` times."""
    counter = WordCounter(PATTERNS[pre_tokenizer])
    counter.add(texts)
    return trained(counter.words, vocab_size, pre_tokenizer, min_frequency)


def trained(words: Words, vocab_size: int, pre_tokenizer: str, min_frequency: int) -> Tokenizer:
    """As `train`, of words that were cut by the same pre-tokenizer."""
    letters = {byte: letter for letter, byte in byte_alphabet().items()}
    in_order = [bytes([byte]) for byte in sorted(range(256), key=letters.__getitem__)]
    num_special = len(BYTE_LEVEL.names)
    learned = merging.train(words, in_order, vocab_size - num_special, min_frequency)
    named = [token.decode("latin-1").translate(letters) for token in learned.tokens]
    tokenizer = new_tokenizer(pre_tokenizer)
    tokenizer.model = models.BPE(
        {token: number for number, token in enumerate([*BYTE_LEVEL.names, *named])},
        [(named[left], named[right]) for left, right in learned.merges],
    )
    tokenizer.add_special_tokens(added(BYTE_LEVEL))
    return tokenizer


def files(tokenizer: Tokenizer, chat_template: ChatTemplate = "chatml") -> dict[str, bytes]:
    """What `AutoTokenizer.from_pretrained` reads, by file name."""
    return tokenizer_files(tokenizer, chat_template)


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
