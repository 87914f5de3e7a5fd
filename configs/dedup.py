"""Exact and near-duplicate removal."""

from typing import ClassVar

from pydantic import Field

from configs.base import Spec


class DedupSpec(Spec):
    """A document is dropped if, and only if, it duplicates an earlier document that is kept.

    Documents are ordered by their ids, which is the order of (crawl, file, offset). Exact duplicates have equal text
    after ASCII lower-casing and collapsing of white space, or the same URL. Near-duplicates are pairs that MinHash-LSH
    proposes and whose sets of word n-grams have at least the Jaccard similarity `jaccard`: by their signatures, and
    where these leave a doubt (three standard errors about the threshold) by the sets themselves.
    """

    node: ClassVar[str] = "dedup"
    version: ClassVar[int] = 5

    jaccard: float = Field(default=0.8, gt=0.3, lt=1)
    """Similarity of word n-gram sets from which a document counts as a duplicate."""
    shingle_words: int = Field(default=5, ge=1, le=32)
    """Words in one n-gram; a shorter document is one n-gram of all its words."""
    num_permutations: int = Field(default=112, ge=16, le=1024)
    """Length of a MinHash signature. The standard error of its estimate is √(J(1-J) / num_permutations)."""
    recall: float = Field(default=0.9, gt=0, lt=1)
    """Least chance that LSH proposes a pair at exactly `jaccard`; the band plan is the most selective that gives it."""
    seed: int = Field(default=1, ge=0)
    """Of the permutations."""
    simhash_bits: int | None = Field(default=None, ge=0, le=6)
    """Drop a document also where its 64-bit SimHash differs from that of an earlier kept one in so many bits at most (3
    in Manku et al. 2007); null does without. It sees what MinHash sees and less, at 20 more keys a document."""
    same_url: bool = True
    """Drop a page whose URL (without fragment, scheme and host in lower case) an earlier kept page has, whatever it
    says: of a page that was fetched twice the first state stays."""
    max_bucket: int = Field(default=1000, ge=1)
    """A document is compared with so many kept documents of each band that it shares, the earliest ones. Bounds the
    time that pages of one template take."""
    max_source_loss: float = Field(default=0.9, gt=0, le=1)
    """Share of a source's (a host's) documents past which its loss is reported as an alarm; 1 reports none."""
    min_source_documents: int = Field(default=50, ge=1)
    """Sources with fewer documents raise no alarm."""
    retracted: tuple[str, ...] = ()
    """Retractions that hold for this corpus, by the digests that `headrace retract` gives them: documents that they
    name are left out as if no crawl had held them. A plan fills this in from the store."""
    max_quarantined_share: float = Field(default=0.01, ge=0, le=1)
    """Share of shards that may fail for good (and are left out, counted) before the node fails."""
