"""Stage "compacted": the keys of all that this crawl and those before it kept, as one run.

Every crawl adds runs, and a later one asks each run for each range of keys. After some crawls their runs are merged, a
shard for every range of keys, so that what a refresh asks for grows with the corpus and not with its history.
"""

import numpy as np

from ray_jobs.checkpoint.shards import ShardOutput
from ray_jobs.dedup.candidates import sort_order
from ray_jobs.dedup.corpus import Corpus, Run, read_runs
from ray_jobs.files.parts import part_bits, parted_file

# Levels that may keep runs of their own. The merge reads all keys, once in so many crawls.
MAX_UNCOMPACTED = 8


def compact(shard: dict[str, int], corpus: Corpus) -> ShardOutput:
    """compacted.run: one range of keys, of all levels."""
    part, num_parts = shard["part"], corpus.level.num_parts
    own = [Run(file, num_parts, 0, num_parts) for file in corpus.files("index", "index.run")]
    rows = read_runs(corpus.store, [*corpus.chain.runs, *own], part, num_parts)
    rows = rows[sort_order(np.ascontiguousarray(rows["first"]), part_bits(num_parts))]
    return ShardOutput({"compacted.run": parted_file([memoryview(rows.tobytes())], len(rows))}, {"entries": len(rows)})
