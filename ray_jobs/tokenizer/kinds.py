"""The kinds of tokenizer that are trained here, by name: how each counts words and learns from them."""

from collections.abc import Mapping

from configs.tokenizer import Kind, TokenizerSpec
from ray_jobs.tokenizer import bpe, sentence_pieces
from ray_jobs.tokenizer.counting import BLANKS
from ray_jobs.tokenizer.merging import Words
from ray_jobs.tokenizer.output_files import tokenizer_files

BYTE_LEVEL: Mapping[Kind, str] = {"bpe-gpt2": "gpt2", "bpe-llama3": "llama3"}
"""Pre-tokenizers of byte-level BPE."""
SENTENCE_PIECE: Mapping[Kind, sentence_pieces.Kind] = {
    "sentencepiece-bpe": "sentencepiece-bpe",
    "sentencepiece-unigram": "sentencepiece-unigram",
}
CUTS: Mapping[str, int] = {**bpe.PATTERNS, "blanks": BLANKS}
"""Ways to cut text into words, of which several kinds may share one."""


def cut_of(kind: Kind) -> str:
    """The name in CUTS of how this kind cuts text."""
    return BYTE_LEVEL.get(kind, "blanks")


def trained(kind: Kind, words: Words, spec: TokenizerSpec) -> dict[str, bytes]:
    """The tokenizer's files by name.

    Args:
        words: of the sample, cut as `cut_of(kind)` says.

    Raises:
        UserError: the vocabulary is too small for the sample's characters, or the sample has too little text.
    """
    model = None
    if kind in SENTENCE_PIECE:
        model = sentence_pieces.train(words, SENTENCE_PIECE[kind], spec.vocab_size)
        tokenizer = sentence_pieces.to_tokenizer(model)
    else:
        tokenizer = bpe.trained(words, spec.vocab_size, BYTE_LEVEL[kind], spec.min_frequency)
    return tokenizer_files(tokenizer, spec.chat_template, model)
