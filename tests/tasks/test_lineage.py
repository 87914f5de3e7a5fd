"""`headrace why tokens/SHARD@POSITION`: from a token to the bytes of the crawl that it was made of, and back."""

import html
import json
import re
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator
from typer.testing import CliRunner

from flows.cli import app
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import open_store
from ray_jobs.tokenizer.encode import Encoder
from ray_jobs.tokenizer.loader import TokenDataset
from ray_jobs.tokenizer.streams import stream_of
from tasks.lineage import TracedToken, is_place, trace_token
from tasks.plan import Plan, make_plan
from tasks.trace import trace
from tests.crawl.archive_bytes import http, members, page, record
from tests.dedup.corpus import rows
from tests.tasks.graph import RULES_OFF, computed

DATA_NODES = ("snapshot", "filter", "dedup", "scrub", "tokenizer", "tokens")
CHANGES = ("tokenizer.vocab_size=400", "tokens.heldout_share=0.4")
WORDS = (
    "river",
    "mill",
    "wheel",
    "weir",
    "naïve",
    "straße",
    "水車",
    "☂",
    "😀",
    "sluice",
    "race",
    "tail",
    "pond",
    "stone",
)


def prose(number: int) -> str:
    return " ".join(f"{WORDS[(number * 7 + i * (number + 3)) % len(WORDS)]}{number * i}" for i in range(60))


def archive(folder: Path, name: str, numbers: range) -> Path:
    path = folder / name
    path.write_bytes(members(*(record(http(page(prose(n))), f"http://a.example/{n}") for n in numbers)))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lineage")


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    """Of a recipe whose nodes up to tokens have run, on two archives of ten pages each."""
    archives = [archive(folder, "one.warc.gz", range(10)), archive(folder, "two.warc.gz", range(10, 20))]
    return computed(folder, archives, DATA_NODES, CHANGES)


def checkpoint_of(plan: Plan, name: str) -> Checkpoint:
    manifest = plan.nodes[name].manifest
    assert manifest is not None
    return Checkpoint(plan.store, manifest)


def payload_at(token: TracedToken) -> str:
    """The body of the record that the token's document says it is from, read from the archive itself."""
    with Path(token.document.archive.removeprefix("file://")).open("rb") as stream:
        stream.seek(token.document.offset)
        found = next(iter(ArchiveIterator(stream, parse_http=True)))
        assert str(found.headers["WARC-Target-URI"]).strip("<>") == token.document.url
        return found.reader.read().decode(errors="replace")


def test_every_document_is_found_from_its_tokens_and_its_words_in_the_archive(plan: Plan) -> None:
    tokens = checkpoint_of(plan, "tokens")
    texts = {row["id"]: row["text"] for row in rows(checkpoint_of(plan, "scrub"), "documents.parquet")}
    seen = set()
    for part in ("train", "heldout"):
        for row in rows(tokens, "index.parquet", part):
            start, middle = row["start"], row["start"] + row["length"] // 2
            for position in (start, middle, start + row["length"] - 2):
                token = trace_token(plan, f"tokens/{part}/{row['shard']:05d}@{position}")
                assert (token.document.id, token.document_start) == (row["id"], start)
                text = texts[row["id"]].encode()
                piece = text[token.text_start : token.text_end]
                assert token.text == piece.decode(errors="replace") and piece
                assert text[: token.text_end].endswith((token.before + token.text).encode()) or "\ufffd" in token.before
            word = texts[row["id"]].split()[30]
            assert word in payload_at(token)
            seen.add(row["id"])
    assert seen == texts.keys() and len(seen) == 20


@pytest.mark.parametrize("kind", ["sentencepiece-bpe", "sentencepiece-unigram"])
def test_pieces_are_found_in_their_documents_too(folder: Path, kind: str) -> None:
    (folder / kind).mkdir()
    archives = [archive(folder / kind, "one.warc.gz", range(10))]
    plan = computed(folder / kind, archives, DATA_NODES, (f"tokenizer.model={kind}", *CHANGES))
    texts = {row["id"]: row["text"].encode() for row in rows(checkpoint_of(plan, "scrub"), "documents.parquet")}
    for row in rows(checkpoint_of(plan, "tokens"), "index.parquet", "train"):
        place = f"tokens/train/{row['shard']:05d}"
        found = [trace_token(plan, f"{place}@{row['start'] + at}") for at in (0, 1, 2, row["length"] // 2)]
        for token in found:
            assert token.text == texts[row["id"]][token.text_start : token.text_end].decode(errors="replace")
        end = trace_token(plan, f"{place}@{row['start'] + row['length'] - 1}")
        assert (end.text, end.text_start) == ("</s>", len(texts[row["id"]]))


def test_a_document_names_the_tokens_that_it_became(plan: Plan) -> None:
    parts = set()
    for number in range(20):
        (document,) = trace(plan, f"http://a.example/{number}")
        step = document.steps[-1]
        assert step.node == "tokens"
        token = trace_token(plan, step.facts["place"])
        assert token.document == document
        assert token.document_length == step.facts["num_tokens"]
        assert token.text_start == 0
        end = trace_token(
            plan, f"{step.facts['place'].split('@')[0]}@{token.document_start + token.document_length - 1}"
        )
        assert (end.text, end.text_start, end.text_end) == ("<|endoftext|>", *[step.facts["num_bytes"]] * 2)
        parts.add(step.facts["place"].split("/")[1])
    assert parts == {"train", "heldout"}


def test_a_position_in_the_stream_is_the_one_that_training_reads(plan: Plan) -> None:
    tokens = checkpoint_of(plan, "tokens")
    dataset = TokenDataset(stream_of(tokens, "train"), sequence_length=16, seed=1)
    encoder = Encoder(checkpoint_of(plan, "tokenizer").read(checkpoint_of(plan, "tokenizer").file("tokenizer.json")))
    windows = dataset.windows(0, 12)
    for window, sample in zip(windows.tolist(), dataset.batch(0, 12), strict=True):
        token = trace_token(plan, f"tokens@{window * 16 + 5}")
        assert token.token == sample[5]
        assert token.place.startswith("tokens/train/0000")
        if "\ufffd" not in token.text:
            assert token.text == encoder.decode([token.token])


def test_what_does_not_exist_is_refused_with_what_there_is(plan: Plan, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no tokens node 'scrub': it has tokens"):
        trace_token(plan, "scrub/0@1")
    with pytest.raises(ValueError, match=r"tokens/train has no shard 7: it has 0, 1"):
        trace_token(plan, "tokens/7@1")
    with pytest.raises(ValueError, match=r"tokens/heldout/00001 holds [\d,]+ tokens: positions are counted from 0"):
        trace_token(plan, "tokens/heldout/1@99999999")
    empty = make_plan(plan.recipe, open_store(folder / "empty"))
    with pytest.raises(ValueError, match="`headrace run tiny --to tokens` first"):
        trace_token(empty, "tokens@0")


@pytest.mark.parametrize(
    ("what", "wanted"),
    [
        ("tokens@0", True),
        ("tokens/00003@123456", True),
        ("tokens/heldout/3@1", True),
        ("http://a.example/3@1", False),
        ("crawl/00001/000000000012", False),
        ("tokens", False),
    ],
)
def test_places_are_told_from_pages(what: str, wanted: bool) -> None:
    assert is_place(what) == wanted


def test_the_command_shows_the_token_in_its_text_and_the_record(plan: Plan, folder: Path) -> None:
    archives = ", ".join(repr(str(folder / name)) for name in ("one.warc.gz", "two.warc.gz"))
    changes = [f"snapshot={{archives: {{urls: [{archives}]}}}}", *(f"filter.{off}" for off in RULES_OFF), *CHANGES]
    arguments = ["--recipe", "tiny", "--store", plan.store.url, *(part for one in changes for part in ("--set", one))]
    shown = CliRunner().invoke(app, ["why", "tokens/1@9", *arguments])
    assert shown.exit_code == 0, shown.output
    token = trace_token(plan, "tokens/1@9")
    assert f"token {token.token}" in shown.output
    assert f"at byte {token.document.offset:,} of " in shown.output and "two.warc.gz" in shown.output
    assert token.document.url in shown.output
    as_json = CliRunner().invoke(app, ["why", "tokens/1@9", "--json", *arguments])
    assert json.loads(as_json.output)["document"]["offset"] == token.document.offset


def test_tokens_of_a_real_crawl_lead_to_its_records(tmp_path: Path, data_dir: Path) -> None:
    sources = [data_dir / "warc" / "dolma" / f"sample-000{number}.warc.gz" for number in (0, 1)]
    plan = computed(tmp_path, sources, DATA_NODES, ("tokenizer.vocab_size=400", "tokens.heldout_share=0"))
    index = rows(checkpoint_of(plan, "tokens"), "index.parquet", "train")
    assert len(index) > 10
    for row in index:
        token = trace_token(plan, f"tokens/{row['shard']}@{row['start'] + row['length'] // 2}")
        word = max(re.findall(r"\b[^\W\d_]+\b", token.before)[1:], key=len)
        assert len(word) > 4 and word in html.unescape(payload_at(token)), token
