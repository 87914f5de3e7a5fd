"""The encoder's tokens are those of Hugging Face tokenizers, whoever computes them."""

import functools
import gzip
import json
import random
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from ray_jobs.tokenizer import bpe, encode
from ray_jobs.tokenizer.encode import Encoder, sound
from tests.scrub.test_bad_input import ODD
from tests.tokenizer.vocabularies import PARTS, PROSE, of_gpt2, random_text, trained

NAMES = ("gpt2", "llama3")
BOTH = pytest.mark.parametrize("name", NAMES)
LARGE_BYTES = 100_000_000


@functools.cache
def encoder(name: str) -> Encoder:
    return Encoder(trained(name).to_str().encode())


def by_library(tokenizer: Tokenizer, text: str) -> list[int]:
    """Special tokens are plain text where a page spells them."""
    tokenizer.encode_special_tokens = True
    return tokenizer.encode(text, add_special_tokens=False).ids


def assert_equal(one: Encoder, texts: Iterable[str], library: Tokenizer) -> int:
    """Every document's tokens, and all together; returns how many tokens."""
    texts = list(texts)
    tokens, lengths = one.encode_documents(texts)
    library.encode_special_tokens = True
    start = 0
    for text, length in zip(texts, lengths.tolist(), strict=True):
        (encoding,) = library.encode_batch_fast([text], add_special_tokens=False)
        assert tokens[start : start + length].tolist() == [*encoding.ids, one.end_of_text], text[:200]
        start += length
    assert start == len(tokens)
    return start


# --- equality on real text ---


def real_texts(data_dir: Path) -> Iterator[str]:
    """Prose, 75 languages, programs, questions, crawled pages as HTML; long documents and short ones."""
    for name in ("tinyshakespeare.txt", "wikitext2-valid.txt"):
        text = (data_dir / "corpora" / name).read_text()
        yield text
        yield from (text[start : start + 3_001] for start in range(0, 300_000, 3_001))
    for file in sorted((data_dir / "lid" / "sentences").iterdir()):
        text = file.read_text()
        yield text
        yield from text.splitlines()
        yield unicodedata.normalize("NFD", text[:5_000])  # marks apart from their letters
        yield text[:5_000].upper()
    for answer in json.loads((data_dir / "instruct" / "gpteacher-codegen.json").read_text()):
        yield answer["response"]
    yield from (data_dir / "eval" / "gsm8k_train.jsonl").read_text().splitlines()[:1_500]
    with gzip.open(data_dir / "realpages" / "realpages-dev.warc.gz") as stream:
        pages = stream.read(6_000_000)
    yield from (pages[start : start + 20_011].decode(errors="replace") for start in range(0, len(pages), 20_011))
    root = Path(__file__).resolve().parents[2]
    yield from (file.read_text() for file in sorted(root.glob("ray_jobs/**/*.py")))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "gpt2's own"])
def test_tokens_of_real_text_are_the_library_s_on_every_document(name: str, data_dir: Path) -> None:
    texts = list(real_texts(data_dir))
    tokenizer = of_gpt2(data_dir) if name == "gpt2's own" else bpe.train(texts[::3], 32_000, name, 2)
    one = Encoder(tokenizer.to_str().encode())
    assert one.is_compiled
    num_tokens = assert_equal(one, texts, tokenizer)
    print(f"\n{len(texts)} documents, {sum(map(len, texts)) / 1e6:.1f} M characters, {num_tokens} tokens")
    assert num_tokens > 3_000_000


def test_gpt_2_s_vocabulary_gives_the_tokens_of_its_authors_example(data_dir: Path) -> None:
    one = Encoder(of_gpt2(data_dir).to_str().encode())
    assert one.is_compiled and one.end_of_text == 50256
    assert one.encode("Hello world") == [15496, 995]
    assert one.encode("Hello, y'all! How are you 😁 ?") == [
        *[15496, 11, 331, 6, 439, 0, 1374, 389, 345, 30325, 223, 5633]  # as transformers' documentation has it
    ]


# --- equality on any text ---


@BOTH
def test_tokens_of_random_unicode_are_the_library_s(name: str) -> None:
    chance = random.Random(name)
    texts = [random_text(chance, chance.randrange(120)) for _ in range(4_000)]
    assert_equal(encoder(name), texts, trained(name))


@BOTH
@given(text=st.one_of(st.text(max_size=80), st.lists(st.sampled_from(PARTS), max_size=40).map("".join)))
def test_tokens_of_any_text_are_the_library_s_and_give_it_back(name: str, text: str) -> None:
    tokens = encoder(name).encode(text)
    assert tokens == by_library(trained(name), text)
    assert encoder(name).decode(tokens) == text


@BOTH
@given(data=st.binary(max_size=200))
def test_any_bytes_come_back_from_their_tokens_but_for_what_is_no_utf_8(name: str, data: bytes) -> None:
    tokens, (length,) = encoder(name).encode_column(pa.array([data], pa.large_binary()))
    assert length == len(tokens) and tokens[-1] == encoder(name).end_of_text
    assert encoder(name).decode(tokens[:-1].tolist()) == data.decode(errors="replace")
    assert min(tokens[:-1].tolist(), default=9) >= len(bpe.SPECIAL_TOKENS)


@BOTH
def test_odd_documents_are_the_library_s(name: str) -> None:
    texts = [bpe.decoded(data) for data in ODD.values()]
    texts += ["", "\x00" * 5_000, " " * 9_999, "\n" * 9_999, " \n" * 5_000 + "x", "\u3000" * 300 + "x", "x" * 70_000]
    texts += ["<|endoftext|>", "<|im_start|>user\n<|im_end|>", "a<|pad|>b", "\ufeffx", "\U0010ffff" * 99]
    assert_equal(encoder(name), texts, trained(name))
    assert_equal(encoder(name), texts[::-1], trained(name))
    for text in texts:
        assert encoder(name).decode(encoder(name).encode(text)) == text


# --- what is no UTF-8 ---


def test_sound_repairs_what_python_repairs_and_nothing_else() -> None:
    """Arrow and Python agree on what is UTF-8: all starts of two bytes, and the limits of each length."""
    ends = [b"", b"\x80", b"\xbf", b"a", b"\x80\x80", b"\xbf\xbf", b"\xff"]
    starts = [bytes([lead, second]) for lead in range(0x70, 0x100) for second in (0x20, 0x7F, 0x80, 0x8F, 0x90, 0x9F)]
    starts += [bytes([lead, second]) for lead in range(0xC0, 0x100) for second in (0xA0, 0xBF, 0xC0)]
    for start in starts:
        for end in ends:
            data = start + end
            (got,) = sound(pa.array([data], pa.large_binary())).to_pylist()
            assert got == data.decode(errors="replace"), data


def test_one_document_that_is_no_utf_8_changes_no_other() -> None:
    texts = [b"one", b"caf\xc3", b"\xed\xa0\x80 lone", "日本".encode(), b""]
    one = encoder("llama3")
    tokens, lengths = one.encode_column(pa.array(texts, pa.large_binary()))
    ends = np.cumsum(lengths)
    for text, end, length in zip(texts, ends, lengths, strict=True):
        assert tokens[end - length : end].tolist() == [*one.encode(text.decode(errors="replace")), one.end_of_text]


def test_a_lone_surrogate_in_a_string_is_taken_for_its_bytes() -> None:
    one = encoder("gpt2")
    assert one.encode("a\ud800b") == one.encode("a\ufffd\ufffd\ufffdb")


# --- columns ---


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_columns_of_all_kinds_slices_and_chunks_give_the_same_tokens(kind: pa.DataType) -> None:
    one = encoder("gpt2")
    wanted, wanted_lengths = one.encode_documents(PROSE)
    column = pa.array(["before", *PROSE, "behind"], kind)
    for given_ in (
        column.slice(1, len(PROSE)),
        pa.chunked_array([column.slice(1, 3), column.slice(4, 0), column.slice(4, len(PROSE) - 3)]),
    ):
        tokens, lengths = one.encode_column(given_)
        assert tokens.tolist() == wanted.tolist() and lengths.tolist() == wanted_lengths.tolist()


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, "uint16"), (65_537, "uint32")])
def test_two_bytes_hold_the_tokens_of_a_vocabulary_of_65536_and_no_larger(vocab_size: int, dtype: str) -> None:
    described = json.loads(bpe.train(["a b"], 260, "gpt2", 2).to_str())
    vocab, merges = described["model"]["vocab"], described["model"]["merges"]
    letters = "abcdefghijklmnopqrstuvwxyz"
    shorter = list(letters)
    for tails in (letters, letters.upper(), letters.upper()):  # so that no pair of a word's later letters is a merge
        pairs = [(one, tail) for one in shorter for tail in tails][: vocab_size - len(vocab)]
        shorter = ["".join(pair) for pair in pairs]
        merges += pairs
        vocab |= {token: len(vocab) + place for place, token in enumerate(shorter)}
    one = Encoder(json.dumps(described).encode())
    assert (one.vocab_size, one.dtype) == (vocab_size, dtype) and one.is_compiled
    tokens, _ = one.encode_documents([shorter[-1]])
    assert tokens.dtype == dtype and tokens.tolist() == [vocab_size - 1, one.end_of_text]


@pytest.mark.parametrize("none", [pa.array([], pa.large_string()), pa.chunked_array([], pa.large_string())])
def test_no_documents_give_no_tokens(none: pa.Array) -> None:
    for one in (encoder("gpt2"), Encoder(metaspace().to_str().encode())):
        tokens, lengths = one.encode_column(none)
        assert (len(tokens), len(lengths), tokens.dtype, lengths.dtype) == (0, 0, "uint16", "int64")
        assert [part.tolist() for part in one.encode_documents([])] == [[], []]
        assert [part.tolist() for part in one.encode_documents(["", ""])] == [[one.end_of_text] * 2, [1, 1]]


# --- tokenizers of other kinds ---


def metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>", *bpe.SPECIAL_TOKENS], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(PROSE, trainer)
    return tokenizer


def changed(**model: object) -> Tokenizer:
    described = json.loads(trained("llama3").to_str())
    described["model"] |= model
    return Tokenizer.from_str(json.dumps(described))


def with_another_pattern() -> Tokenizer:
    tokenizer = changed()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}|\P{N}+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def with_a_word_of_its_own() -> Tokenizer:
    tokenizer = changed()
    tokenizer.add_tokens([AddedToken("mill", special=False)])
    return tokenizer


OTHERS = {
    "unigram": metaspace,
    "pattern": with_another_pattern,
    "added token": with_a_word_of_its_own,
    "ignore_merges": lambda: changed(ignore_merges=True),
    "suffix": lambda: changed(end_of_word_suffix="s"),
    "no byte": lambda: changed(vocab={"a": 5, **{token: i for i, token in enumerate(bpe.SPECIAL_TOKENS)}}, merges=[]),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_tokenizers_of_other_kinds_are_left_to_the_library(kind: str) -> None:
    tokenizer = OTHERS[kind]()
    one = Encoder(tokenizer.to_str().encode())
    assert not one.is_compiled
    chance = random.Random(4)
    assert_equal(one, [*PROSE[:2], "", *(random_text(chance, 40) for _ in range(50))], tokenizer)


def test_the_library_is_given_long_documents_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = changed(ignore_merges=True)
    one = Encoder(tokenizer.to_str().encode())
    monkeypatch.setattr(encode, "PIECE_CHARACTERS", 500)
    monkeypatch.setattr(encode, "_BATCH_CHARACTERS", 5_000)
    given_: list[int] = []
    encodings = one._encodings
    monkeypatch.setattr(one, "_encodings", lambda texts: given_.append(len(texts)) or encodings(texts))
    chance = random.Random(9)
    texts = ["".join(PROSE), "short", "", *(random_text(chance, 1_000) for _ in range(20))]
    assert_equal(one, texts, tokenizer)
    assert set(given_) == {1} and len(given_) >= len(texts)


# --- size ---


@pytest.mark.slow
@pytest.mark.parametrize("text", ["x", "日本語", "The river carries the water of many small streams. "])
def test_a_document_of_100_mb_takes_little_time_and_memory(text: str, tmp_path: Path) -> None:
    """In a process of its own, whose peak is its own."""
    file = tmp_path / "tokenizer.json"
    file.write_text(trained("llama3").to_str())
    code = f"""
import re, sys, time
from pathlib import Path
import pyarrow as pa
from ray_jobs.tokenizer.encode import Encoder
encoder = Encoder(Path(sys.argv[1]).read_bytes())
encoder.encode("x")
text = {text!r}.encode()
column = pa.array([text * ({LARGE_BYTES} // len(text))], pa.large_binary())
began = time.process_time()
tokens, lengths = encoder.encode_column(column)
print(time.process_time() - began, len(tokens), int(lengths[0]))
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(file)]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    seconds, num_tokens, length, kilobytes = map(float, shown.stdout.split())
    print(f"\n{seconds:.1f} s, {num_tokens:.0f} tokens, peak {kilobytes / 1e6:.2f} GB")
    assert num_tokens == length > 1_000_000
    assert kilobytes < 1.5e6 and seconds < 60
