"""python -m tests.benchmarks.decisions: whether our rules decide as datatrove's filters do, given the same words.

A document counts as alike for a rule where both keep it or both drop it, by the default thresholds. Where they differ:

- Words without a letter or digit are none to datatrove in the number and the length of words. The paper counts words.
- Its stop words are in lower case only. Ours are in whatever case, as a sentence's first word is a word.
- Its lines have the white space at their ends, which counts when they are short, equal or punctuated; blank ones are
  lines to its share of ellipses. Pages of text aligned by spaces differ by that.
- Its most frequent n-gram may overlap itself, and be one that stands once: in texts of a few words, which other rules
  drop too.
- A line of 30 characters is short to datatrove, and not to the paper ("shorter than").
"""

import functools
import json
from collections import Counter
from pathlib import Path

from tests.benchmarks.corpus import DATA, DATATROVE, peer_lines
from tests.benchmarks.harness import Bench, NotMeasured, figure, main


@functools.cache
def texts(given: Path | None) -> list[str]:
    """Main text of the debian crawl's pages and of the real pages, in all languages."""
    from configs.crawl import FilterSpec
    from ray_jobs.crawl.documents import document_of
    from ray_jobs.crawl.records import Faults, read_records
    from ray_jobs.files.streams import LocalFile

    archives = [given] if given else [DATA / "debian/debian-multi.warc.gz", DATA / "realpages/realpages-dev.warc.gz"]
    if not all(archive.is_file() for archive in archives):
        raise NotMeasured(f"{DATA} lacks the crawls: set HEADRACE_DATA to the data's folder, or name one by --input")
    spec, found = FilterSpec(), []
    for archive in archives:
        records = read_records(LocalFile(archive), spec.max_bytes, Faults())
        found += [text for record in records if (text := document_of(record, spec).text)]
    return found


GROUPS: dict[str, tuple[str | None, ...]] = {
    "gopher_quality": (None, "gopher_quality"),
    "gopher_repetition": ("gopher_repetition",),
    "fineweb": ("fineweb",),
}


def ours(given: Path | None) -> list[set[str]]:
    """For each text the rules that drop it, each rule by itself, and the groups."""
    from configs.crawl import C4, FilterSpec
    from ray_jobs.crawl.rules import RULES, Rule
    from ray_jobs.crawl.statistics import NAMES, Statistics, measure_texts

    spec = FilterSpec(c4=C4())

    def drops(rule: Rule, statistics: Statistics) -> bool:
        threshold = getattr(getattr(spec, rule.group) if rule.group else spec, rule.threshold)
        value = getattr(statistics, rule.score)
        return threshold is not None and (value < threshold if rule.is_least else value > threshold)

    # datatrove has no least number of tokens, and line corrections change the text.
    rules = [rule for rule in RULES if rule.score in NAMES and rule.name != "min_tokens"]
    dropped = []
    for statistics in measure_texts(texts(given)):
        broken = [rule for rule in rules if drops(rule, statistics)]
        groups = [name for name, members in GROUPS.items() if any(rule.group in members for rule in broken)]
        dropped.append({rule.name for rule in broken} | set(groups))
    return dropped


def alike(count: Counter[tuple[bool, bool]]) -> float:
    return (count[True, True] + count[False, False]) / count.total()


@figure("share", target="≥ .99", repeats=1, warm_up=False)
def decisions_like_datatrove(bench: Bench) -> float:
    """Share of documents that both keep or both drop, by the groups' rules together; the notes have each rule's."""
    file = bench.new_folder() / "texts.jsonl"
    file.write_text("\n".join(map(json.dumps, texts(bench.input))) + "\n")
    from ray_jobs.files.scripts import UNSPACED

    unspaced = UNSPACED.pattern.strip("[]")
    rules, *theirs = map(json.loads, peer_lines(bench, DATATROVE, "peer_datatrove_rules.py", file, unspaced))
    pairs = list(zip(ours(bench.input), map(set, theirs), strict=True))
    counts = {rule: Counter((rule in mine, rule in other) for mine, other in pairs) for rule in rules}
    together = Counter((not mine.isdisjoint(GROUPS), not other.isdisjoint(GROUPS)) for mine, other in pairs)
    bench.notes |= {"documents": len(pairs), "version": DATATROVE[0]}
    for rule, count in {"together": together, **counts}.items():
        bench.notes[rule] = {
            "alike": round(alike(count), 4),
            "both_drop": count[True, True],
            "ours_alone": count[True, False],
            "theirs_alone": count[False, True],
        }
    return alike(together)


if __name__ == "__main__":
    main("decisions", __name__)
