"""python -m tests.benchmarks.tokenizers: training a tokenizer, ours and Hugging Face's on the same text.

20 MB of Debian's manuals in some 30 languages, 32,000 tokens, GPT-2's pre-tokenizer. "per_s_core" is of a second of
processor time, of all threads together. What each makes of 4 MB of other pages is in the notes.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.benchmarks.corpus import DATA, processor_time
from tests.benchmarks.harness import Bench, NotMeasured, figure, main
from tests.dedup.corpus import debian_texts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from ray_jobs.tokenizer.sentence_pieces import Kind

SAMPLE_BYTES, HELD_OUT_BYTES = 20_000_000, 4_000_000
VOCAB_SIZE = 32_000


@functools.cache
def texts() -> tuple[list[str], list[str]]:
    """To train on, and to measure on: every sixth page."""
    if not DATA.is_dir():
        raise NotMeasured("needs the real data: set HEADRACE_DATA to its folder")
    sample: list[str] = []
    held_out: list[str] = []
    sizes = [0, 0]
    for place, text in enumerate(debian_texts(DATA, 4000)):
        part = int(place % 6 == 0)
        if sizes[part] < (SAMPLE_BYTES, HELD_OUT_BYTES)[part]:
            (sample, held_out)[part].append(text)
            sizes[part] += len(text.encode())
    return sample, held_out


def trained(bench: Bench, train: Callable[[list[str]], "Tokenizer"]) -> float:
    """MB a second of processor time; bytes a token goes into the notes."""
    sample, held_out = texts()
    num_bytes = sum(len(text.encode()) for text in sample)
    with processor_time() as seconds:
        tokenizer = train(sample)
    encoded = tokenizer.encode_batch_fast(held_out, add_special_tokens=False)
    bytes_per_token = sum(len(text.encode()) for text in held_out) / sum(len(one.ids) for one in encoded)
    bench.notes |= {
        "mb": round(num_bytes / 1e6, 1),
        "vocab_size": tokenizer.get_vocab_size(),
        "bytes_per_token": round(bytes_per_token, 4),
    }
    return num_bytes / 1e6 / seconds()


@figure("MB/s", target="≥ 2 × that of Hugging Face's")
def bpe_training_mb_per_s_core(bench: Bench) -> float:
    """Counting words and learning merges."""
    from ray_jobs.tokenizer import bpe

    return trained(bench, lambda sample: bpe.train(sample, VOCAB_SIZE, "gpt2", 2))


@figure("MB/s", warm_up=False)
def bpe_training_mb_per_s_core_hugging_face(bench: Bench) -> float:
    """tokenizers' BpeTrainer."""
    from tokenizers import pre_tokenizers, trainers

    from ray_jobs.tokenizer import bpe

    def train(sample: list[str]) -> "Tokenizer":
        tokenizer = bpe.new_tokenizer("gpt2")
        trainer = trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE,
            min_frequency=2,
            special_tokens=list(bpe.SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(sample, trainer)
        return tokenizer

    return trained(bench, train)


@figure("MB/s", warm_up=False)
def sentencepiece_bpe_training_mb_per_s_core(bench: Bench) -> float:
    """The library's BPE on our counts of words."""
    return trained(bench, lambda sample: _pieces(sample, "sentencepiece-bpe"))


@figure("MB/s", repeats=1, warm_up=False)
def sentencepiece_unigram_training_mb_per_s_core(bench: Bench) -> float:
    """The library's unigram on our counts of words."""
    return trained(bench, lambda sample: _pieces(sample, "sentencepiece-unigram"))


def _pieces(sample: list[str], kind: "Kind") -> "Tokenizer":
    from ray_jobs.tokenizer import sentence_pieces
    from ray_jobs.tokenizer.counting import BLANKS, WordCounter

    counter = WordCounter(BLANKS)
    counter.add(sample)
    return sentence_pieces.to_tokenizer(sentence_pieces.train(counter.words, kind, VOCAB_SIZE))


if __name__ == "__main__":
    main("tokenizers", __name__)
