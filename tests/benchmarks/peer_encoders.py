"""Documents, one a line of JSON, encoded by another library; prints megabytes encoded a second of processor time, on
one thread: of all documents once, of the second half after the first, and of all once more. Then the SHA-256 of the
tokens as uint32.

Run by encoding.py, in an environment of its own.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

# As tiktoken itself writes GPT-2's pattern and that of cl100k_base, which Llama 3 has: with possessive quantifiers.
TIKTOKEN = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "llama3": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
}
Encode = Callable[[list[str]], Any]


def of_tokenizers(described: dict[str, Any], pattern: str) -> Encode:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.encode_special_tokens = True
    return lambda texts: [one.ids for one in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def of_gigatoken(described: dict[str, Any], pattern: str) -> Encode:
    """With special tokens left out, as it would read them out of text; documents as bytes, its fastest way in."""
    import gigatoken

    tokenizer = gigatoken.Tokenizer.from_json(json.dumps(described | {"added_tokens": []}))
    return lambda texts: tokenizer.encode_batch([text.encode() for text in texts], parallel=False)


def of_tiktoken(described: dict[str, Any], pattern: str) -> Encode:
    import tiktoken

    plain = [byte for byte in range(256) if 0x21 <= byte <= 0x7E or (byte >= 0xA1 and byte != 0xAD)]
    others = [byte for byte in range(256) if byte not in plain]
    bytes_of = {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}
    special = {token["content"] for token in described["added_tokens"]}
    ranks = {
        bytes(bytes_of[character] for character in token): number
        for token, number in described["model"]["vocab"].items()
        if token not in special
    }
    encoding = tiktoken.Encoding("ours", pat_str=TIKTOKEN[pattern], mergeable_ranks=ranks, special_tokens={})
    return lambda texts: [encoding.encode_ordinary(text) for text in texts]


if __name__ == "__main__":
    import numpy as np

    library, pattern = sys.argv[1], sys.argv[4]
    described = json.loads(Path(sys.argv[2]).read_text())
    texts = [json.loads(line) for line in Path(sys.argv[3]).read_text().splitlines()]
    make = {"tokenizers": of_tokenizers, "gigatoken": of_gigatoken, "tiktoken": of_tiktoken}[library]

    def rate(encode: Encode, texts: list[str]) -> float:
        num_bytes = sum(len(text.encode()) for text in texts)
        began = time.process_time()
        encode(texts)
        return num_bytes / 1e6 / (time.process_time() - began)

    encode, half = make(described, pattern), len(texts) // 2
    once = rate(encode, texts)
    again = rate(encode, texts)
    digest = hashlib.sha256()
    for tokens in encode(texts):
        digest.update(np.asarray(tokens, dtype=np.uint32).tobytes())
    encode = make(described, pattern)
    encode(texts[:half])
    print(once, rate(encode, texts[half:]), again)
    print(digest.hexdigest())
