"""The table of tokenizers, of a tokenizer node that really ran."""

import json
from pathlib import Path

from ray_jobs.checkpoint.store import open_store
from ray_jobs.report.nodes import Node
from ray_jobs.report.vocabularies import TOKENIZER_COLUMNS, comparison
from tests.tokenizer.test_job import SENTENCES, scrubbed, shards, tokenizer


def test_the_table_shows_what_the_node_measured(tmp_path: Path) -> None:
    trained = tokenizer(scrubbed(open_store(tmp_path / "store"), shards(SENTENCES, 100)))
    told = comparison(Node("tokenizer", trained, {}))
    assert told is not None and told.names == ["bpe-gpt2"] and told.num_left_out == 0
    (measured,) = json.loads(trained.read(trained.file("measures.json")))
    sums = measured["languages"]["en"]
    (row,) = told.languages
    assert (row.language, row.documents) == ("en", sums["documents"]) and told.num_documents == sums["documents"] > 0
    assert row.cells == [
        f"{sums['bytes'] / sums['tokens']:.2f}",
        f"{sums['characters'] / sums['tokens']:.2f}",
        f"{sums['tokens'] / sums['words']:.2f}",
    ]
    (figures,) = told.tokenizers
    cells = dict(zip(TOKENIZER_COLUMNS, figures.cells, strict=True))
    assert cells["vocabulary"] == "400" and cells["do not come back"] == "0"
    assert cells["bytes a token"] == row.cells[0]
    assert cells["digits a token"] == f"{sums['digits'] / sums['number_tokens']:.2f}"
    assert cells["tokens a number"] == f"{sums['number_tokens'] / sums['numbers']:.2f}"
    assert cells["… of code"] == f"{measured['code']['bytes'] / measured['code']['tokens']:.2f}"
