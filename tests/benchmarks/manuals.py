"""python -m tests.benchmarks.manuals: near-duplicates between two versions of the same manuals.

The pages of the Linux kernel's documentation, as Debian packages it for 6.1 and 6.12: a page and the page of the same
path two years on are a pair, alike to every degree. What is true of a pair is computed from the sets of its shingles as
strings (`tests.dedup.reference`), what is found by the functions of the dedup node with its spec's defaults.

The packages come from `apt-get download`, once; `--input FOLDER` names a folder that holds the two .deb files instead.
"""

import functools
import itertools
import os
import shutil
import subprocess
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from configs.dedup import DedupSpec
from ray_jobs.files.columns import text_buffers
from tests.benchmarks.harness import Bench, NotMeasured, figure, main

PACKAGES = ("linux-doc-6.1", "linux-doc-6.12")
MIN_WORDS = 50
"""As in the filter node: shorter pages never reach deduplication."""
NUM_SEEDS = 20
NUM_ESTIMATES = 1_000
DEVIATIONS = 1.96
"""Half the width of an interval that holds 95 % of a normal distribution."""


@dataclass(frozen=True)
class Manuals:
    """n pages that both versions have: pages 0 to n - 1 are the older ones, page n + i the newer of page i."""

    texts: list[bytes]
    shingles: list[set[tuple[str, ...]]]
    jaccard: npt.NDArray[np.float64]
    """[n]: true similarity of each page with its newer one."""

    def true_jaccard(self, one: int, other: int) -> float:
        from tests.dedup.reference import jaccard

        return jaccard(self.shingles[one], self.shingles[other])


@functools.cache
def manuals(given: Path | None) -> Manuals:
    from ray_jobs.crawl.text import main_text
    from tests.dedup import reference

    versions = [pages_of(unpacked(package, given)) for package in PACKAGES]
    texts: list[list[bytes]] = [[], []]
    for path in sorted(versions[0].keys() & versions[1].keys()):
        both = [(main_text(version[path].read_text(errors="replace")) or "").encode() for version in versions]
        if all(len(reference.words(text)) >= MIN_WORDS for text in both):
            for version, text in zip(texts, both, strict=True):
                version.append(text)
    shingles = [reference.shingles(text, DedupSpec().shingle_words) for text in [*texts[0], *texts[1]]]
    n = len(texts[0])
    similar = [reference.jaccard(shingles[i], shingles[n + i]) for i in range(n)]
    return Manuals([*texts[0], *texts[1]], shingles, np.array(similar))


def unpacked(package: str, given: Path | None) -> Path:
    """The folder of the package's files, unpacked once."""
    cache = Path(tempfile.gettempdir()) / f"headrace-manuals-{os.getuid()}"
    target = cache / package
    if target.exists():
        return target
    cache.mkdir(exist_ok=True)
    if shutil.which("dpkg-deb") is None:
        raise NotMeasured("unpacking Debian packages needs dpkg-deb")
    if given is None:
        download = subprocess.run(["apt-get", "download", package], cwd=cache, capture_output=True, text=True)
        if download.returncode:
            raise NotMeasured(f"apt-get download {package}: {download.stderr.strip()[-200:]}; give --input FOLDER")
    (archive, *_) = sorted((given or cache).glob(f"{package}_*.deb"))
    partial = cache / f"{package}.partial"
    subprocess.run(["dpkg-deb", "-x", archive, partial], check=True)
    partial.rename(target)
    return target


def pages_of(folder: Path) -> dict[str, Path]:
    """Page's path within the manual -> its file."""
    (root,) = folder.glob("usr/share/doc/*/html")
    left_out = {"genindex.html", "search.html"}  # lists that a program made
    return {str(path.relative_to(root)): path for path in root.rglob("*.html") if path.name not in left_out}


@functools.cache
def normalised(given: Path | None) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    import pyarrow as pa

    from ray_jobs.dedup import minhash

    return minhash.normalise(*text_buffers(pa.array(manuals(given).texts, pa.large_binary())))


@functools.cache
def signatures(given: Path | None, seed: int) -> npt.NDArray[np.uint32]:
    from ray_jobs.dedup import minhash

    spec = DedupSpec()
    return minhash.signatures(*normalised(given), spec.shingle_words, spec.num_permutations, seed)


def proposed(given: Path | None, seed: int) -> npt.NDArray[np.bool_]:
    """[n]: whether a page and its newer one agree in a band."""
    from ray_jobs.dedup import minhash
    from ray_jobs.dedup.bands import plan_bands

    spec = DedupSpec()
    plan = plan_bands(spec.jaccard, spec.recall, spec.num_permutations)
    keys = minhash.band_keys(signatures(given, seed), plan.num_bands, plan.rows)
    n = keys.shape[1] // 2
    return (keys[:, :n] == keys[:, n:]).any(axis=0)


def chances(jaccard: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """By theory, that pairs of these similarities agree in a band."""
    from ray_jobs.dedup.bands import plan_bands

    spec = DedupSpec()
    plan = plan_bands(spec.jaccard, spec.recall, spec.num_permutations)
    return np.array([plan.recall(value) for value in jaccard.tolist()])


@figure("share", target="in theory's 95 % interval", repeats=1, warm_up=False)
def manuals_lsh_recall(bench: Bench) -> float:
    """Of pairs at or over the threshold, equal ones left out, those that LSH proposes."""
    corpus, spec = manuals(bench.input), DedupSpec()
    over = (corpus.jaccard >= spec.jaccard) & (corpus.jaccard < 1)
    theory = chances(corpus.jaccard[over])
    found = proposed(bench.input, spec.seed)[over].mean()
    of_seeds = [proposed(bench.input, seed)[over].mean() for seed in range(NUM_SEEDS)]
    bench.notes |= {"pages": len(corpus.jaccard), "pairs": int(over.sum()), **interval(theory)}
    bench.notes |= {f"mean_of_{NUM_SEEDS}_seeds": round(float(np.mean(of_seeds)), 4)}
    return float(found)


@figure("share", target="in theory's 95 % interval", repeats=1, warm_up=False)
def manuals_lsh_proposed(bench: Bench) -> float:
    """Of pairs anywhere on the slope of the curve, where theory gives 1 to 99 %, those that LSH proposes."""
    corpus = manuals(bench.input)
    theory = chances(corpus.jaccard)
    slope = (theory > 0.01) & (theory < 0.99)
    of_seeds = [proposed(bench.input, seed)[slope].mean() for seed in range(NUM_SEEDS)]
    bench.notes |= {"pairs": int(slope.sum()), **interval(theory[slope])}
    bench.notes |= {f"mean_of_{NUM_SEEDS}_seeds": round(float(np.mean(of_seeds)), 4)}
    return float(proposed(bench.input, DedupSpec().seed)[slope].mean())


def interval(theory: npt.NDArray[np.float64]) -> dict[str, float]:
    """Mean of a sum of independent events of these chances, over their number, and its 95 % interval."""
    mean = float(theory.mean())
    deviation = float(np.sqrt((theory * (1 - theory)).sum())) / len(theory)
    low, high = mean - DEVIATIONS * deviation, mean + DEVIATIONS * deviation
    return {"theory": round(mean, 4), "low": round(low, 4), "high": round(high, 4)}


@figure("share", repeats=1, warm_up=False)
def manuals_lsh_precision(bench: Bench) -> float:
    """Of all pairs of pages that agree in a band, those at or over the threshold: what verification has to sort out."""
    from ray_jobs.dedup import minhash
    from ray_jobs.dedup.bands import plan_bands

    corpus, spec = manuals(bench.input), DedupSpec()
    plan = plan_bands(spec.jaccard, spec.recall, spec.num_permutations)
    pairs = set()
    for keys in minhash.band_keys(signatures(bench.input, spec.seed), plan.num_bands, plan.rows):
        buckets = defaultdict(list)
        for page, key in enumerate(keys.tolist()):
            buckets[key].append(page)
        pairs |= {pair for bucket in buckets.values() for pair in itertools.combinations(bucket, 2)}
    bench.notes |= {"pairs": len(pairs)}
    return float(np.mean([corpus.true_jaccard(*pair) >= spec.jaccard for pair in pairs]))


@figure("share", target="1", repeats=1, warm_up=False)
def manuals_dedup_precision(bench: Bench) -> float:
    """Of pages that the node's rule drops, those at or over the threshold with the page they are said to duplicate."""
    from ray_jobs.dedup import minhash
    from ray_jobs.dedup.bands import plan_bands
    from ray_jobs.dedup.verify import find_duplicates

    corpus, spec = manuals(bench.input), DedupSpec()
    plan = plan_bands(spec.jaccard, spec.recall, spec.num_permutations)
    sets = minhash.shingle_sets(*normalised(bench.input), spec.shingle_words)
    verdicts = find_duplicates(signatures(bench.input, spec.seed), *sets, plan, spec.jaccard)
    dropped = np.flatnonzero(verdicts.duplicate_of >= 0)
    true = np.array([corpus.true_jaccard(page, int(verdicts.duplicate_of[page])) for page in dropped.tolist()])
    n = len(corpus.jaccard)
    wanted = np.flatnonzero(corpus.jaccard >= spec.jaccard) + n
    bench.notes |= {
        "pages": 2 * n,
        "dropped": len(dropped),
        "recall_of_newer_pages": round(float((verdicts.duplicate_of[wanted] >= 0).mean()), 4),
        "largest_error_of_similarity": float(np.abs(true - verdicts.similarity[dropped]).max()),
    }
    return float((true >= spec.jaccard).mean())


@figure("RMSE", target="of independent permutations", repeats=1, warm_up=False)
def manuals_minhash_error(bench: Bench) -> float:
    """Of the similarity that signatures estimate, on 1,000 pairs of which none is equal; datasketch's beside it."""
    from datasketch import MinHash

    from tests.dedup.reference import shingles

    corpus, spec = manuals(bench.input), DedupSpec()
    n = len(corpus.jaccard)
    chosen = np.flatnonzero((corpus.jaccard > 0.05) & (corpus.jaccard < 1))
    chosen = np.sort(np.random.default_rng(1).permutation(chosen)[:NUM_ESTIMATES])
    true = corpus.jaccard[chosen]
    standard = np.sqrt(true * (1 - true) / spec.num_permutations)
    signed = signatures(bench.input, spec.seed)
    errors = {"ours": (signed[chosen] == signed[n + chosen]).mean(axis=1) - true}

    def sketch(page: int) -> MinHash:
        made = MinHash(num_perm=spec.num_permutations)
        made.update_batch([" ".join(one).encode("utf-8", "replace") for one in shingles(corpus.texts[page])])
        return made

    estimates = [sketch(page).jaccard(sketch(n + page)) for page in chosen.tolist()]
    errors["datasketch"] = np.array(estimates) - true
    bench.notes |= {
        "pairs": len(chosen),
        "ideal": round(float(np.sqrt((standard**2).mean())), 4),
        "datasketch": round(float(np.sqrt((errors["datasketch"] ** 2).mean())), 4),
        **{
            f"{name}_within_3_errors": round(float((np.abs(error) <= 3 * standard).mean()), 4)
            for name, error in errors.items()
        },
        "bias": round(float(errors["ours"].mean()), 4),
    }
    return float(np.sqrt((errors["ours"] ** 2).mean()))


@figure("share", repeats=1, warm_up=False)
def manuals_simhash_recall(bench: Bench) -> float:
    """Of pairs at or over the threshold, those whose SimHashes differ in at most 3 bits; of the others, likewise."""
    from ray_jobs.dedup.simhash import distance, simhashes

    corpus, spec = manuals(bench.input), DedupSpec()
    numbers = simhashes(*normalised(bench.input), spec.shingle_words)
    n = len(corpus.jaccard)
    bits = distance(numbers[:n], numbers[n:])
    over = corpus.jaccard >= spec.jaccard
    for limit in (3, 5, 7, 10):
        bench.notes[f"within_{limit}_bits"] = round(float((bits[over] <= limit).mean()), 4)
        bench.notes[f"of_unlike_pairs_within_{limit}"] = round(float((bits[~over] <= limit).mean()), 4)
    return float((bits[over] <= 3).mean())


if __name__ == "__main__":
    main("manuals", __name__)
