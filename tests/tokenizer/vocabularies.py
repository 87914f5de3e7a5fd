"""Tokenizers that the tests of encoding share, and random texts and merges of the kinds that tell encoders apart."""

import functools
import random
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE

from ray_jobs.tokenizer import bpe
from ray_jobs.tokenizer.merges import byte_alphabet

PROSE = ["it's the mill's wheel,\nthat they'll turn. \n\n  12345 times!\n日本語。\nテキスト ünï\r\n\tend"] * 30
PARTS = [*"aZé日字_1٣'.!。,-stmdrevlSTMDREVL", *"½Ⅷ𝟘𐍈\U000e0100ſK", " ", "  ", "\n", "\n\n", "\r\n", "\t", "\x0b"]
PARTS += ["\x1c", "\x85", "\u00a0", "\u2028", "\u3000", "\u200b", "'s", "'ll", "'S", "'ſ", "word", "abcdefghij"]
PARTS += ["e\u0301", "😀", "\x00", "\ufffd", "<|endoftext|>", " a", "a ", "a\n", "\na"]


@functools.cache
def trained(pre_tokenizer: str) -> Tokenizer:
    return bpe.train(PROSE, 400, pre_tokenizer, 2)


def of_gpt2(data_dir: Path) -> Tokenizer:
    """GPT-2's own vocabulary and merges, with our special tokens."""
    folder = data_dir / "tokenizers" / "gpt2"
    tokenizer = bpe.new_tokenizer("gpt2")
    tokenizer.model = BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe"))
    tokenizer.add_special_tokens(list(bpe.SPECIAL_TOKENS))
    return tokenizer


def random_text(chance: random.Random, num_parts: int) -> str:
    """Mostly of PARTS, some characters from anywhere in Unicode."""
    return "".join(
        chance.choice(PARTS) if chance.random() < 0.85 else random_character(chance) for _ in range(num_parts)
    )


def random_character(chance: random.Random) -> str:
    """Of any plane, half of them of the first quarter of plane 0, where the scripts are."""
    while True:
        point = chance.randrange(0x110000 if chance.random() < 0.5 else 0x4000)
        if not 0xD800 <= point < 0xE000:
            return chr(point)


def random_merges(chance: random.Random, letters: str, number: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary of all bytes and of merges in random order, as no training leaves them: a token may be made by
    several merges, and long before those that make its parts."""
    tokens, merges = list(letters), []
    for _ in range(number):
        pair = chance.choice(tokens), chance.choice(tokens)
        if pair not in merges:
            merges.append(pair)
            tokens.append("".join(pair))
    chance.shuffle(merges)
    distinct = dict.fromkeys([*byte_alphabet(), *tokens])
    return {token: number for number, token in enumerate(distinct)}, merges
