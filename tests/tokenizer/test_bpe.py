import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE

from ray_jobs.tokenizer import bpe
from ray_jobs.tokenizer.encode import Encoder

TEXTS = [
    "The quick brown fox jumps over the lazy dog. " * 20,
    "der schnelle braune Fuchs, 1234567 mal\n" * 20,
    "日本語 テキスト" * 20,
]


@pytest.fixture(scope="module", params=["gpt2", "llama3"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return Encoder(bpe.files(bpe.train(TEXTS, 400, request.param, min_frequency=2))["tokenizer.json"])


ENCODERS = {name: Encoder(bpe.files(bpe.train(TEXTS, 400, name, 2))["tokenizer.json"]) for name in ("gpt2", "llama3")}


@settings(deadline=None)
@given(st.text(max_size=200), st.sampled_from(sorted(ENCODERS)))
def test_any_text_comes_back_unchanged_from_its_tokens(text: str, name: str) -> None:
    encoder = ENCODERS[name]
    ids = encoder.encode(text)
    assert encoder.decode(ids) == text
    assert all(number >= len(bpe.SPECIAL_TOKENS) for number in ids)


@given(st.binary(max_size=100))
def test_bytes_that_are_no_text_are_encoded_as_their_repair(data: bytes) -> None:
    encoder = ENCODERS["gpt2"]
    assert encoder.decode(encoder.encode(bpe.decoded(data))) == data.decode(errors="replace")


def test_special_tokens_come_first_and_never_arise_from_text(encoder: Encoder) -> None:
    assert [encoder.tokenizer.token_to_id(token) for token in bpe.SPECIAL_TOKENS] == [0, 1, 2, 3]
    assert (encoder.end_of_text, encoder.pad) == (0, 1)
    for token in bpe.SPECIAL_TOKENS:
        ids = encoder.encode(f"before{token}after")
        assert min(ids) > 3 and encoder.decode(ids) == f"before{token}after"


def test_text_that_spells_a_special_token_teaches_nothing_special() -> None:
    model = bpe.train(["<|endoftext|>" * 50], 300, "gpt2", 2)
    assert all(model.token_to_id(token) == number for number, token in enumerate(bpe.SPECIAL_TOKENS))
    assert Encoder(bpe.files(model)["tokenizer.json"]).encode("<|endoftext|>")[0] > 3


def test_documents_end_with_end_of_text_and_nothing_else_is_added(encoder: Encoder) -> None:
    tokens, lengths = encoder.encode_documents(["one fox", "", "<|pad|>"])
    assert tokens.dtype == "uint16"
    assert tokens.tolist() == [*encoder.encode("one fox"), 0, 0, *encoder.encode("<|pad|>"), 0]
    assert lengths.tolist() == [len(encoder.encode("one fox")) + 1, 1, len(encoder.encode("<|pad|>")) + 1]


def test_gpt2_s_own_vocabulary_cuts_text_as_ours_is_cut(data_dir: Path) -> None:
    from transformers import GPT2Tokenizer

    folder = data_dir / "tokenizers" / "gpt2"
    vocabulary, merges = str(folder / "encoder.json"), str(folder / "vocab.bpe")
    ours = bpe.new_tokenizer("gpt2")
    ours.model = BPE.from_file(vocabulary, merges)
    theirs = GPT2Tokenizer(vocab=vocabulary, merges=merges)
    for text in ["Hello world's  three   spaces\n\n\ttab 12345 ünïcödé 日本語 !?", *TEXTS]:
        assert ours.encode(text).ids == theirs.encode(text)


def test_llama3_cuts_digits_in_threes() -> None:
    cut = bpe.new_tokenizer("llama3").pre_tokenizer.pre_tokenize_str("it's 1234567\n\nx")
    assert [piece for piece, _ in cut] == ["it", "'s", "Ġ", "123", "456", "7", "ĊĊ", "x"]


def test_transformers_loads_what_we_write(tmp_path: Path, encoder: Encoder) -> None:
    from transformers import AutoTokenizer

    for name, data in bpe.files(encoder.tokenizer).items():
        (tmp_path / name).write_bytes(data)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == (bpe.END_OF_TEXT, bpe.END_OF_TEXT, bpe.PAD)
    assert (loaded.eos_token_id, loaded.pad_token_id) == (encoder.end_of_text, encoder.pad)
    assert len(loaded) == encoder.vocab_size
    assert set(loaded.all_special_tokens) == set(bpe.SPECIAL_TOKENS)
    for text in [*TEXTS, " leading, trailing  ", "n't . , !", "\x00\r\n\t", "ünïcödé 😀"]:
        assert loaded.encode(text) == encoder.encode(text)
        assert loaded.decode(loaded.encode(text)) == text
    # A chat template's text is read with its special tokens, as transformers does by default.
    assert loaded.encode("<|im_start|>user")[0] == 2
    assert min(loaded.encode("<|im_start|>user", split_special_tokens=True)) > 3


def test_training_gives_the_same_bytes_whatever_the_threads_and_the_process(tmp_path: Path, data_dir: Path) -> None:
    code = (
        "import sys, hashlib; from pathlib import Path; from ray_jobs.tokenizer import bpe;"
        "text = Path(sys.argv[1]).read_text();"
        "texts = [text[i:i + 5000] for i in range(0, 400_000, 5000)];"
        "print(hashlib.sha256(bpe.files(bpe.train(texts, 1500, 'gpt2', 2))['tokenizer.json']).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, str(data_dir / "corpora" / "wikitext2-valid.txt")],
            env={**os.environ, "TOKENIZERS_PARALLELISM": parallel, "RAYON_NUM_THREADS": threads},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for parallel, threads in (("false", "1"), ("true", "2"), ("true", "5"))
    }
    assert len(digests) == 1


@pytest.mark.parametrize("pre_tokenizer", bpe.PRE_TOKENIZERS)
def test_the_tokenizer_is_the_one_that_hugging_face_s_trainer_makes(pre_tokenizer: str, data_dir: Path) -> None:
    texts = [path.read_text() for path in sorted((data_dir / "corpora").glob("*.txt"))]
    theirs = bpe.new_tokenizer(pre_tokenizer)
    trainer = trainers.BpeTrainer(
        vocab_size=6000,
        min_frequency=2,
        special_tokens=list(bpe.SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    theirs.train_from_iterator(texts, trainer)
    ours = bpe.train(texts, 6000, pre_tokenizer, 2)
    assert json.loads(ours.to_str()) == json.loads(theirs.to_str())


@pytest.mark.parametrize("word", ["x", "1", "@", "\n", "日", "_", "\x00"])
def test_a_word_of_a_million_characters_is_soon_learned(word: str) -> None:
    began = time.process_time()
    model = bpe.train([word * 1_000_000, *TEXTS], 400, "gpt2", 2)
    assert time.process_time() - began < 20  # merging the whole of it by passes over it takes half an hour
    assert Encoder(bpe.files(model)["tokenizer.json"]).decode(model.encode(word * 5000).ids) == word * 5000


def test_a_vocabulary_that_the_sample_cannot_fill_is_as_large_as_it_gets() -> None:
    model = bpe.train(["ab ab ab"], 5000, "gpt2", 2)
    # 4 special tokens, 256 bytes, "ab" and " ab".
    assert model.get_vocab_size() == 262


def test_the_files_are_plain_json_of_known_content(encoder: Encoder) -> None:
    files = bpe.files(encoder.tokenizer)
    names = ["chat_template.jinja", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(files) == names
    assert json.loads(files["tokenizer_config.json"])["eos_token"] == "<|endoftext|>"
    assert Tokenizer.from_str(files["tokenizer.json"].decode()).get_vocab_size() == encoder.vocab_size


def test_a_tokenizer_without_our_special_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has no <\|endoftext\|>"):
        Encoder(bpe.new_tokenizer("gpt2").to_str().encode())
