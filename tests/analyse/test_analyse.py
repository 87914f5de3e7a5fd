"""What `headrace analyse` says is what a model does."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.analyse import AnalyseSpec
from configs.inference import EngineSpec
from ray_jobs.analyse import decoding, kv, prompts
from ray_jobs.analyse.__main__ import main
from ray_jobs.analyse.tables import Rows
from ray_jobs.inference.engine import Engine
from ray_jobs.inference.loading import Loaded, load
from ray_jobs.tokenizer.chat import CHAT_TEMPLATES
from tests.inference.test_engine import VOCABULARY, model_of
from tests.serve.tiny import write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("analyse"))


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Loaded:
    return load(str(folder), device="cpu", dtype="fp32")


def spec_of(**changes: Any) -> AnalyseSpec:
    return AnalyseSpec(model="tiny", store="file:///nowhere", **changes)


def test_llama_2_70b_keeps_320_kib_a_token() -> None:
    config = SimpleNamespace(num_hidden_layers=80, num_key_value_heads=8, num_attention_heads=64, hidden_size=8192)
    assert kv.bytes_per_token(config) == 327_680
    assert kv.bytes_per_token(config) * 4096 == 1.25 * 2**30


def test_bytes_a_token_are_those_of_the_engines_memory(tiny: Loaded) -> None:
    said = {row["kept as"]: row["bytes a token"] for row in kv._memory(tiny).rows}
    for name, kv_dtype in (("fp32", "model"), ("int8", "int8")):
        spec = EngineSpec(kv_dtype=kv_dtype)  # type: ignore[arg-type]
        assert Engine(tiny.model, tiny.num_tokens, spec=spec).sequences.memory.bytes_per_token == said[name]


def test_every_kind_of_cache_writes_the_same_and_blocks_waste_less(tiny: Loaded) -> None:
    _, kinds, allocation = kv.analyse(tiny, spec_of(lengths=(3, 9), batches=(1, 4)))
    assert [row["cache"] for row in kinds.rows] == ["none", "dynamic", "static", "paged"] * 2
    assert all(row["same text"] for row in kinds.rows)
    for contiguous, paged in zip(allocation.rows[::2], allocation.rows[1::2], strict=True):
        assert contiguous["at once, most"] <= contiguous["memory for"] <= paged["at once, most"]
        assert paged["idle %"] < contiguous["idle %"] / 2
        assert paged["steps"] < contiguous["steps"]


def test_paged_memory_of_realistic_lengths_lies_idle_by_less_than_4_percent() -> None:
    """Blocks as they are by default, prompts of 16–512 and answers of 16–256 tokens, against pieces for the longest."""
    model = model_of()
    model.config.max_position_embeddings = 1024
    requests = kv.mix(24, VOCABULARY, 0, (16, 512), (16, 256))
    idle = {}
    paged = EngineSpec().block_size
    for block_size in (paged, 768):
        spec = EngineSpec(block_size=block_size, num_blocks=24 * 768 // block_size, prefix_cache=False)
        idle[block_size] = kv.served(Engine(model, VOCABULARY, spec=spec), requests)["idle %"]
    assert idle[paged] < 4
    assert idle[768] > 60


def test_ways_of_decoding_stand_side_by_side(tiny: Loaded) -> None:
    (table,) = decoding.analyse(tiny, spec_of(prompt="the cat", new_tokens=64))
    rows = {row["way"]: row for row in table.rows}
    assert len(rows) == len(decoding.WAYS) + 1
    assert all(row["tokens"] and row["nats a token"] > 0 for row in rows.values())
    assert rows["greedy (T = 0)"]["nats a token"] < rows["T = 1.5"]["nats a token"]


def test_forms_of_prompts_are_rendered_with_their_ids(tiny: Loaded) -> None:
    summary, *tables = prompts.analyse(tiny, spec_of(prompt="hello"))
    assert [row["form"] for row in summary.rows] == list(CHAT_TEMPLATES)
    tokenizer: Any = tiny.tokenizer
    for row, table in zip(summary.rows, tables, strict=True):
        ids = [one["id"] for one in table.rows]
        assert tokenizer.decode(ids) == row["text"] and len(ids) == row["tokens"]
    assert (
        "[INST] <<SYS>>" in summary.rows[1]["text"] and "<|im_start|>user\nhello<|im_end|>" in summary.rows[0]["text"]
    )


def test_the_command_prints_json_and_says_what_is_missing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    spec = AnalyseSpec(model=str(folder), store=f"file://{tmp_path}", prompt="a", new_tokens=2, json_output=True)
    for model, code in ((str(folder), 0), ("/no/folder", 2)):
        sys.argv = ["analyse", "prompts", spec.model_copy(update={"model": model}).model_dump_json()]
        assert main() == code
    said = capsys.readouterr()
    assert json.loads(said.out)[0]["rows"][0]["form"] == "chatml"
    assert "there is no folder /no/folder" in said.err


def test_tables_hold_numbers_and_texts(capsys: pytest.CaptureFixture[str]) -> None:
    from ray_jobs.analyse.tables import show

    show([Rows("Title", [{"a": 1234, "b": None, "c": "x", "d": 0.12345}], "note")], as_json=False)
    assert {"1,234", "–", "x", "0.1235", "note"} <= set(capsys.readouterr().out.replace("│", " ").split())
