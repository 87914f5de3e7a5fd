"""python -m tests.benchmarks.encoding: text to token ids, on one core.

Main text of web pages in 30 languages, programs and English prose, 16 MB; a vocabulary of 32,000 tokens that was
trained on half of it with Llama 3's pre-tokenizer, and GPT-2's own. All rates are of processor time, by an encoder that
has seen no text before; the notes have the rate at the second half after the first, and of all once more, when every
word has been seen.
"""

import functools
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.corpus import DATA, main_texts, peer_lines, processor_time, scratch
from tests.benchmarks.harness import Bench, NotMeasured, figure, main

if TYPE_CHECKING:
    import pyarrow as pa

    from ray_jobs.tokenizer.encode import Encoder, Tokens

VOCAB_SIZE = 32_000
PEERS = {
    "tokenizers": ("tokenizers==0.23.3", "numpy==2.4.6"),
    "tiktoken": ("tiktoken==0.14.0", "numpy==2.4.6"),
    "gigatoken": ("gigatoken==0.10.0", "numpy==2.4.6"),
}
COMPILE_SECONDS = 600


@functools.cache
def texts(given: Path | None) -> "pa.Array":
    """The benchmark's documents: large_string."""
    import pyarrow as pa

    from ray_jobs.tokenizer.encode import sound

    found = sound(main_texts(given)).to_pylist()
    if given is None:
        programs = json.loads((DATA / "instruct" / "gpteacher-codegen.json").read_text())
        found += [program["response"] for program in programs]
        for name in ("wikitext2-valid.txt", "tinyshakespeare.txt"):
            text = (DATA / "corpora" / name).read_text()
            found += [text[start : start + 10_000] for start in range(0, len(text), 10_000)]
    return pa.array(found, pa.large_string())


@functools.cache
def tokenizer_file(given: Path | None, pattern: str) -> Path:
    """A tokenizer.json: trained on every second document, or for "gpt2" GPT-2's own vocabulary."""
    from ray_jobs.tokenizer import bpe
    from tests.tokenizer.vocabularies import of_gpt2

    if pattern == "gpt2":
        if not (DATA / "tokenizers").is_dir():
            raise NotMeasured(f"{DATA}/tokenizers is not there: set HEADRACE_DATA to the data's folder")
        tokenizer = of_gpt2(DATA)
    else:
        tokenizer = bpe.train(texts(given).to_pylist()[::2], VOCAB_SIZE, pattern, 2)
    file = scratch() / f"{pattern}.json"
    file.write_text(tokenizer.to_str())
    return file


def ours(bench: Bench, pattern: str) -> float:
    from ray_jobs.tokenizer.encode import Encoder

    data, column = tokenizer_file(bench.input, pattern).read_bytes(), texts(bench.input)
    encoder = Encoder(data)
    assert encoder.is_compiled
    once, again = rate(encoder, column), rate(encoder, column)
    tokens, lengths = encoder.encode_column(column)
    bench.notes |= {
        "documents": len(column),
        "megabytes": round(column.nbytes / 1e6, 1),
        "tokens": int(lengths.sum()) - len(column),
        "second_half": round(rate_after_first_half(data, column), 1),
        "again": round(again, 1),
        "sha256": digest(tokens, lengths)[:16],
    }
    return once


def rate(encoder: "Encoder", column: "pa.Array") -> float:
    import pyarrow.compute as pc

    with processor_time() as seconds:
        encoder.encode_column(column)
    return pc.sum(pc.binary_length(column)).as_py() / 1e6 / seconds()


def rate_after_first_half(data: bytes, column: "pa.Array") -> float:
    from ray_jobs.tokenizer.encode import Encoder

    encoder, half = Encoder(data), len(column) // 2
    encoder.encode_column(column[:half])
    return rate(encoder, column[half:])


def digest(tokens: "Tokens", lengths: "Tokens") -> str:
    """SHA-256 of all tokens but the documents' ends, as uint32."""
    import numpy as np

    inside = np.ones(len(tokens), dtype=bool)
    inside[np.cumsum(lengths) - 1] = False
    return hashlib.sha256(tokens[inside].astype(np.uint32).tobytes()).hexdigest()


def theirs(bench: Bench, library: str, pattern: str) -> float:
    file, column = tokenizer_file(bench.input, pattern), texts(bench.input)
    documents = bench.new_folder() / "documents.jsonl"
    documents.write_text("\n".join(map(json.dumps, column.to_pylist())))
    rates, sha = peer_lines(bench, PEERS[library], "peer_encoders.py", library, file, documents, pattern)[-2:]
    once, second_half, again = map(float, rates.split())
    bench.notes |= {
        "second_half": round(second_half, 1),
        "again": round(again, 1),
        "sha256": sha[:16],  # of equal tokens the same as ours
        "version": PEERS[library][0],
    }
    return once


@figure("MB/s", target="≥ 30")
def encode_mb_per_s_core(bench: Bench) -> float:
    """A column of documents to token ids, checked for sound UTF-8, by the vocabulary that was trained here."""
    return ours(bench, "llama3")


@figure("MB/s", target="≥ 30")
def encode_gpt2_mb_per_s_core(bench: Bench) -> float:
    """The same by GPT-2's vocabulary."""
    return ours(bench, "gpt2")


@figure("MB/s", warm_up=False)  # a process of its own
def encode_mb_per_s_core_tokenizers(bench: Bench) -> float:
    return theirs(bench, "tokenizers", "llama3")


@figure("MB/s", warm_up=False)
def encode_mb_per_s_core_tiktoken(bench: Bench) -> float:
    return theirs(bench, "tiktoken", "llama3")


@figure("MB/s", warm_up=False)
def encode_mb_per_s_core_gigatoken(bench: Bench) -> float:
    return theirs(bench, "gigatoken", "llama3")


@figure("MB/s", warm_up=False)
def encode_gpt2_mb_per_s_core_tokenizers(bench: Bench) -> float:
    return theirs(bench, "tokenizers", "gpt2")


@figure("MB/s", warm_up=False)
def encode_gpt2_mb_per_s_core_tiktoken(bench: Bench) -> float:
    return theirs(bench, "tiktoken", "gpt2")


@figure("MB/s", warm_up=False)
def encode_gpt2_mb_per_s_core_gigatoken(bench: Bench) -> float:
    return theirs(bench, "gigatoken", "gpt2")


@figure("s", warm_up=False)
def encode_compile_s(bench: Bench) -> float:
    """Processor time of a first process on a machine, which compiles, less that of the next; once an installation."""
    folder = bench.new_folder()
    return seconds_to_first_token(bench, folder) - seconds_to_first_token(bench, folder)


@figure("s")
def encoder_start_s(bench: Bench) -> float:
    """An encoder of 32,000 tokens made and its first document encoded, in a process that has imported all; compiled
    before."""
    from ray_jobs.tokenizer.encode import Encoder

    data = tokenizer_file(bench.input, "llama3").read_bytes()
    began = time.process_time()
    Encoder(data).encode("the first document")
    return time.process_time() - began


def seconds_to_first_token(bench: Bench, numba_cache: Path) -> float:
    code = "import sys, time; from pathlib import Path; from ray_jobs.tokenizer.encode import Encoder\n"
    code += "data = Path(sys.argv[1]).read_bytes(); began = time.process_time()\n"
    code += "Encoder(data).encode('the first document'); print(time.process_time() - began)"
    file = tokenizer_file(bench.input, "llama3")
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        env={**os.environ, "NUMBA_CACHE_DIR": str(numba_cache)},
        capture_output=True,
        text=True,
        timeout=COMPILE_SECONDS,
        check=True,
    )
    return float(done.stdout)


if __name__ == "__main__":
    main("encoding", __name__)
