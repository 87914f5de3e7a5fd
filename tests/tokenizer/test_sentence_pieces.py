"""The two SentencePiece kinds: what `sentencepiece` loads and what transformers loads give equal ids."""

import io
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from configs.tokenizer import TokenizerSpec
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.tokenizer import sentence_pieces
from ray_jobs.tokenizer.counting import BLANKS, WordCounter
from ray_jobs.tokenizer.encode import Encoder
from ray_jobs.tokenizer.merging import Words
from ray_jobs.tokenizer.output_files import tokenizer_files
from ray_jobs.tokenizer.sentence_pieces import Kind
from ray_jobs.tokenizer.special import SENTENCE_PIECE
from tests.tokenizer.test_pieces import PARTS

KINDS: tuple[Kind, ...] = ("sentencepiece-bpe", "sentencepiece-unigram")
TEXTS = [
    "The quick brown fox jumps over the lazy dog. " * 20,
    "der schnelle  braune Fuchs, 1234567 mal\n\tint main() {\n        return 0;\n\t\t}\n" * 20,
    "日本語 テキスト <s> </s> <0x0A> <unk> <|im_start|>" * 20,
]
ODD = [
    "",
    " ",
    "  ",
    "\n",
    "\x00",
    "a\x00b",
    " leading and trailing  ",
    "2024-11-24 1,234.5",
    "x\r\ny\tz",
    "<s>",
    "</s><unk><pad>",
    "<0x0A><0xFF>",
    "<|im_start|>user",
    "😀👩‍👩‍👧 e\u0301 \ufeff \u00a0 \u3000",
    "\u2585",
    "abaaba ababab aaaaaaa",
]


def words_of(texts: list[str]) -> Words:
    counter = WordCounter(BLANKS)
    counter.add(texts)
    return counter.words


MODELS = {kind: sentence_pieces.train(words_of(TEXTS), kind, 420) for kind in KINDS}
ENCODERS = {
    kind: Encoder(tokenizer_files(sentence_pieces.to_tokenizer(model))["tokenizer.json"])
    for kind, model in MODELS.items()
}
PROCESSORS = {kind: sentencepiece.SentencePieceProcessor(model_proto=model) for kind, model in MODELS.items()}
any_text = st.one_of(st.text(max_size=60), st.lists(st.sampled_from([*PARTS, *ODD])).map("".join))


@pytest.mark.parametrize("kind", KINDS)
@given(text=any_text)
def test_tokenizers_and_sentencepiece_give_equal_ids(kind: Kind, text: str) -> None:
    assert ENCODERS[kind].encode(text) == PROCESSORS[kind].encode(text)


@pytest.mark.parametrize("kind", KINDS)
@given(text=any_text)
def test_text_comes_back_and_nothing_special_arises(kind: Kind, text: str) -> None:
    encoder = ENCODERS[kind]
    ids = encoder.encode(text)
    assert encoder.decode(ids) == text.replace("\u2581", " ")
    assert all(number >= len(SENTENCE_PIECE.names) for number in ids)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ODD)
def test_odd_texts_have_equal_ids_and_come_back(kind: Kind, text: str) -> None:
    encoder = ENCODERS[kind]
    ids = encoder.encode(text)
    assert ids == PROCESSORS[kind].encode(text)
    assert encoder.decode(ids) == text == PROCESSORS[kind].decode(ids)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


def test_many_scripts_have_equal_ids(kind: Kind, data_dir: Path) -> None:
    texts = [path.read_text() for path in sorted((data_dir / "lid" / "sentences").glob("*.txt"))]
    texts += [(data_dir / "corpora" / "wikitext2-valid.txt").read_text()[:100_000]]
    model = sentence_pieces.train(words_of(texts), kind, 4000)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    encoder = Encoder(sentence_pieces.to_tokenizer(model).to_str().encode())
    assert encoder.vocab_size == processor.get_piece_size() == 4000
    num_tokens = 0
    for text in texts:
        # Unigram by lines: the library's sums of 32 bits are not exact enough for more.
        for part in [text] if kind == "sentencepiece-bpe" else text.split("\n"):
            ids = encoder.encode(part)
            assert ids == processor.encode(part)
            assert encoder.decode(ids) == part
            num_tokens += len(ids)
    assert num_tokens > 100_000
    chance = random.Random(1)
    letters = sorted(set("".join(texts)))
    for _ in range(2000):
        text = "".join(chance.choices(letters, k=chance.randint(1, 40)))
        assert encoder.encode(text) == processor.encode(text)


def test_documents_end_with_the_end_token(kind: Kind) -> None:
    encoder = ENCODERS[kind]
    tokens, lengths = encoder.encode_documents(["one fox", "", "</s>"])
    assert (encoder.end_of_text, encoder.pad) == (2, 3)
    assert tokens.tolist() == [*encoder.encode("one fox"), 2, 2, *encoder.encode("</s>"), 2]
    assert lengths.sum() == len(tokens)


def test_the_vocabulary_is_as_llama_s(kind: Kind) -> None:
    processor = PROCESSORS[kind]
    assert [processor.id_to_piece(number) for number in range(6)] == list(SENTENCE_PIECE.names)
    assert [processor.id_to_piece(6 + byte) for byte in range(256)] == [f"<0x{byte:02X}>" for byte in range(256)]
    assert (processor.unk_id(), processor.bos_id(), processor.eos_id(), processor.pad_id()) == (0, 1, 2, 3)
    pieces = [processor.id_to_piece(number) for number in range(262, processor.get_piece_size())]
    assert all(len(piece.lstrip("\u2581")) == 1 for piece in pieces if any(c.isdigit() for c in piece))
    assert not any("\n" in piece for piece in pieces)
    assert processor.encode("12", out_type=str) == ["\u2581", "1", "2"]
    assert processor.encode("é\n", out_type=str)[-3:] == ["<0xC3>", "<0xA9>", "<0x0A>"]


def test_bpe_on_words_is_sentencepiece_s_own_on_lines(data_dir: Path) -> None:
    text = (data_dir / "corpora" / "wikitext2-valid.txt").read_text()[:200_000] + TEXTS[1]
    words, written = words_of([text]), io.BytesIO()
    ours = sentencepiece.SentencePieceProcessor(model_proto=sentence_pieces.train(words, "sentencepiece-bpe", 1500))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.split("\n")),
        model_writer=written,
        model_type="bpe",
        vocab_size=1500,
        character_coverage=sentence_pieces.COVERAGE,
        required_chars=sentence_pieces._SPELLED,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        pad_id=3,
        control_symbols=list(SENTENCE_PIECE.names[4:]),
        minloglevel=2,
    )
    theirs = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    assert [ours.id_to_piece(n) for n in range(1500)] == [theirs.id_to_piece(n) for n in range(1500)]
    for line in text.split("\n")[:200]:
        assert ours.encode(line) == theirs.encode(line)


def test_training_gives_the_same_bytes_again_and_on_one_core(kind: Kind) -> None:
    assert sentence_pieces.train(words_of(TEXTS), kind, 420) == MODELS[kind]
    code = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from tests.tokenizer.test_sentence_pieces import TEXTS, sentence_pieces, words_of\n"
        "sys.stdout.buffer.write(sentence_pieces.train(words_of(TEXTS), sys.argv[1], 420))"
    )
    root = Path(__file__).resolve().parents[2]
    shown = subprocess.run([sys.executable, "-c", code, kind], cwd=root, capture_output=True, check=True)
    assert shown.stdout == MODELS[kind]


def test_transformers_loads_the_same_ids(kind: Kind, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = sentence_pieces.to_tokenizer(MODELS[kind])
    for name, data in tokenizer_files(tokenizer, "llama2", MODELS[kind]).items():
        (tmp_path / name).write_bytes(data)
    assert sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.model")).get_piece_size() == len(
        AutoTokenizer.from_pretrained(tmp_path)
    )
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id, loaded.unk_token_id) == (1, 2, 3, 0)
    for text in [*TEXTS, *ODD]:
        ids = loaded.encode(text, split_special_tokens=True)
        assert ids == PROCESSORS[kind].encode(text)
        assert loaded.decode(ids) == text
    assert loaded.encode("<|im_start|>user")[0] == 4


def test_a_vocabulary_that_the_sample_cannot_fill_is_as_large_as_it_gets(kind: Kind) -> None:
    model = sentence_pieces.train(words_of(["ab ab ab"]), kind, 5000)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert 262 + 37 <= processor.get_piece_size() < 262 + 37 + 6  # what special names are spelled with, and ours
    assert Encoder(sentence_pieces.to_tokenizer(model).to_str().encode()).vocab_size == processor.get_piece_size()


def test_a_vocabulary_too_small_for_the_characters_is_refused_with_what_to_do(kind: Kind) -> None:
    with pytest.raises(UserError, match=r"raise\s+tokenizer\.vocab_size"):
        sentence_pieces.train(words_of(TEXTS), kind, 264)


@pytest.mark.parametrize("texts", [[], [""], ["\n\n"]])
def test_nothing_to_learn_from_is_refused_with_what_to_do(kind: Kind, texts: list[str]) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.sample_bytes"):
        sentence_pieces.train(words_of(texts), kind, 300)


def test_a_word_of_a_megabyte_is_trained_on_and_comes_back(kind: Kind) -> None:
    text = "x" * 1_000_000
    model = sentence_pieces.train(words_of([text, *TEXTS]), kind, 400)
    encoder = Encoder(sentence_pieces.to_tokenizer(model).to_str().encode())
    short = text[:20_000]
    assert encoder.decode(encoder.encode(short)) == short


@pytest.mark.parametrize("field", [{"pre_tokenizer": "llama3"}, {"min_frequency": 5}])
def test_what_only_bpe_reads_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is of model bpe, and sentencepiece-unigram has none: leave it out"):
        TokenizerSpec(model="sentencepiece-unigram", **field)
    assert TokenizerSpec(model="bpe", **field)
