"""Stages "signatures" and "index": what a document is compared by, a shard for every group of input files.

signatures.parquet   id, hash of the text, hash of the URL and MinHash signature of every document, in order
keys.run             (key, document) of each band, text and URL, in ranges of keys: what is shuffled
index.run            the same of the documents that were kept, for later crawls
verdicts.parts       the group's duplicates, a part for each input file
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.checkpoint.shards import ShardOutput, parquet_file
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.dedup.candidates import sort_order
from ray_jobs.dedup.corpus import SIGNATURES, Corpus
from ray_jobs.dedup.routing import VERDICTS
from ray_jobs.files.columns import text_buffers
from ray_jobs.files.parts import cut_keys, cut_table, pairs_of, parted_file, read_pairs, read_tables

# Odd constants of MurmurHash3's fmix64 (Appleby), so that a text's key is no URL's.
_TEXT, _URL = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)


def sign(shard: dict[str, int], corpus: Corpus) -> ShardOutput:
    """Hashes, signatures and keys of one group's documents."""
    files = range(shard["first"], shard["end"])
    tables = [_sign_file(corpus, file) for file in files]
    signed = pa.concat_tables(tables).combine_chunks()
    _check_order(corpus, signed["id"])
    start = corpus.level.file_starts()[shard["first"]]
    numbers = np.arange(corpus.first_own + start, corpus.first_own + start + signed.num_rows, dtype=np.uint64)
    ids = signed["id"]
    return ShardOutput(
        {
            "signatures.parquet": parquet_file(signed.drop_columns(["text_bytes"])),
            "keys.run": parted_file(
                run_of(*keys_of(corpus, signed, numbers), corpus.level.num_parts), rows=signed.num_rows
            ),
        },
        {
            "signed": signed.num_rows,
            "retracted": pc.sum(signed["retracted"]).as_py() or 0,
            "signed_bytes": pc.sum(signed["text_bytes"]).as_py() or 0,
        },
        {
            "files": [shard["first"], shard["end"]],
            **({"first_id": ids[0].as_py(), "last_id": ids[-1].as_py()} if signed.num_rows else {}),
        },
    )


def alone(shard: dict[str, int]) -> list[dict[str, int]]:
    """A group's files as groups of one: an unreadable file costs no other."""
    return [{**shard, "first": file, "end": file + 1} for file in range(shard["first"], shard["end"])]


def _sign_file(corpus: Corpus, file: int) -> pa.Table:
    """One input file at a time is held as text."""
    from ray_jobs.dedup import minhash
    from ray_jobs.dedup.urls import is_retracted, url_hashes

    spec = corpus.spec
    table = corpus.read(corpus.documents[file], ["id", "url", "text"])
    text, offsets = minhash.normalise(*text_buffers(table["text"]))
    exact, urls = minhash.exact_hashes(text, offsets), url_hashes(table["url"])
    signed = minhash.signatures(text, offsets, spec.shingle_words, spec.num_permutations, spec.seed)
    return pa.table(
        {
            "id": table["id"].cast(pa.string()),
            "exact": minhash.binary_rows(exact),
            "url": minhash.binary_rows(urls),
            "signature": minhash.binary_rows(signed),
            "simhash": _simhashes(corpus, text, offsets),
            "retracted": is_retracted(corpus.store, spec.retracted, table["id"], table["url"]),
            "text_bytes": np.diff(offsets),
        }
    )


def _simhashes(corpus: Corpus, text: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    from ray_jobs.dedup.simhash import simhashes

    if corpus.spec.simhash_bits is None:
        return np.zeros(len(offsets) - 1, dtype=np.uint64)
    return simhashes(text, offsets, corpus.spec.shingle_words)


def _check_order(corpus: Corpus, ids: pa.ChunkedArray) -> None:
    if len(ids) < 2:
        return
    rises = pc.less(ids[:-1].combine_chunks(), ids[1:].combine_chunks())
    if not pc.all(rises).as_py():
        place = pc.index(rises, False).as_py()
        one, other = ids[place].as_py(), ids[place + 1].as_py()
        if one == other:
            raise UserError(f"two documents carry the id {one}: a crawl's file is listed twice; list it once")
        raise UserError(
            f"document {other} comes after {one}: documents must be in the order of (crawl, file, offset), as a filter "
            "leaves them"
        )


def keys_of(
    corpus: Corpus, signed: pa.Table, numbers: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Every key of every document, and whose it is, in the order of documents."""
    from ray_jobs.dedup import minhash

    signatures = minhash.rows_of(signed["signature"], np.uint32)
    exact, urls = (minhash.rows_of(signed[name], np.uint64) for name in ("exact", "url"))
    bands = near_keys(corpus, signatures, signed["simhash"].to_numpy())
    keys = np.empty((len(numbers), len(bands) + 2), dtype=np.uint64)
    keys[:, :-2] = bands.T
    keys[:, -2], keys[:, -1] = exact[:, 0] * _TEXT, urls[:, 0] * _URL
    has = np.empty(keys.shape, dtype=np.bool_)
    has[:, :-2] = minhash.has_shingles(signatures)[:, None]
    has[:, -2], has[:, -1] = True, urls.any(axis=1) & corpus.spec.same_url
    has[signed["retracted"].to_numpy()] = False
    return keys[has], np.repeat(numbers, has.sum(axis=1))


def near_keys(
    corpus: Corpus, signatures: npt.NDArray[np.uint32], simhash: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """The keys that near-duplicates share, those of MinHash and then those of SimHash: uint64 [bands, n]."""
    from ray_jobs.dedup.minhash import band_keys
    from ray_jobs.dedup.simhash import band_keys_of

    bands = band_keys(signatures, corpus.plan.num_bands, corpus.plan.rows)
    if corpus.spec.simhash_bits is None:
        return bands
    return np.concatenate([bands, band_keys_of(simhash, corpus.spec.simhash_bits)])


def run_of(keys: npt.NDArray[np.uint64], documents: npt.NDArray[np.uint64], num_parts: int) -> list[memoryview]:
    """(key, document) in the order of keys, then documents, cut into ranges of keys.

    `documents` ascends.
    """
    order = sort_order(keys)
    return cut_keys(pairs_of(keys[order], documents[order]), num_parts)


def index(shard: dict[str, int], corpus: Corpus) -> ShardOutput:
    """One group's duplicates, found in all partitions, by input file; and the keys of what is kept."""
    group = shard["group"]
    found = read_tables(corpus.store, corpus.files("duplicates", "duplicates.parts"), group, VERDICTS)
    found = found.sort_by("document")
    documents = found["document"].to_numpy()
    first, end = corpus.level.groups[group]
    starts = np.array(corpus.level.file_starts()[first : end + 1], dtype=np.uint64) + np.uint64(corpus.first_own)
    bounds = np.searchsorted(documents, starts)
    parts = cut_table(found, bounds.tolist())

    run = corpus.file_of_group(SIGNATURES, "keys.run", group)
    num_parts = corpus.level.num_parts
    rows = read_pairs(corpus.store, run, 0, num_parts)
    rows = rows[~np.isin(rows["second"], documents)]
    kept = parted_file(cut_keys(rows, num_parts), len(rows))
    return ShardOutput(
        {"verdicts.parts": parted_file(parts, found.num_rows), "index.run": kept},
        {"index_entries": len(rows)},
    )
