"""The statistics of `ray_jobs.crawl.statistics` as its docstrings say them, in plain Python, slow and obvious."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from ray_jobs.crawl.statistics import BULLETS, CLOSING, SENTENCE_ENDS, STOP_WORDS, TERMINAL, Statistics
from ray_jobs.files.scripts import UNSPACED


def reference(data: bytes) -> Statistics:
    text = data.decode(errors="surrogateescape")
    words = words_of(text)
    if not words:
        return Statistics(*[0] * 29)
    lines = [line.strip() for line in text.split("\n")]
    paragraphs = ["\n".join(group) for is_blank, group in groupby(lines, key=lambda line: line == "") if not is_blank]
    lines = [line for line in lines if line]
    characters = sum(map(length, words))
    line_characters = sum(map(length, lines))
    repeated_lines, repeated_paragraphs = repeated(lines), repeated(paragraphs)
    num_ellipses = text.count("...") + text.count("…")
    # Only ASCII letters have a case here: with all of Unicode's, "ſ" would be an "s".
    ascii_case = re.ASCII | re.IGNORECASE
    lowered = {re.sub("[A-Z]", lambda letter: letter.group().lower(), word) for word in words}
    return Statistics(
        num_words=len(words),
        mean_word_length=characters / len(words),
        symbol_ratio=max(text.count("#"), num_ellipses) / len(words),
        bullet_lines=share(lines, [line for line in lines if line.startswith(tuple(BULLETS))]),
        ellipsis_lines=share(lines, [line for line in lines if line.endswith(("...", "…"))]),
        alphabetic_words=share(words, [word for word in words if any(map(str.isalpha, word))]),
        num_stop_words=len(lowered & set(STOP_WORDS)),
        duplicate_lines=share(lines, repeated_lines),
        duplicate_line_characters=sum(map(length, repeated_lines)) / max(1, line_characters),
        duplicate_paragraphs=share(paragraphs, repeated_paragraphs),
        duplicate_paragraph_characters=sum(length(paragraph.replace("\n", "")) for paragraph in repeated_paragraphs)
        / max(1, line_characters),
        **{f"top_{n}_grams": top_n_grams(words, n) / max(1, length(text)) for n in (2, 3, 4)},
        **{f"duplicate_{n}_grams": duplicate_n_grams(words, n) / max(1, length(text)) for n in range(5, 11)},
        punctuated_lines=share(lines, [line for line in lines if line.endswith(tuple(TERMINAL))]),
        short_lines=share(lines, [line for line in lines if length(line) < 30]),
        newlines_per_word=(len(lines) - 1) / len(words),
        few_word_lines=share(lines, [line for line in lines if len(words_of(line)) < 3]),
        javascript_lines=share(lines, [line for line in lines if re.search("javascript", line, ascii_case)]),
        num_sentences=sum(word.rstrip(CLOSING).endswith(tuple(SENTENCE_ENDS)) for word in words),
        num_lorem_ipsum=len(re.findall("lorem ipsum", text, ascii_case)),
        num_curly_brackets=text.count("{") + text.count("}"),
        num_tokens=(len(data) + 3) // 4,
    )


def words_of(text: str) -> list[str]:
    return UNSPACED.sub(lambda found: f" {found.group()} ", text).split()


def length(text: str) -> int:
    """In characters; a stray byte that could only continue one is none."""
    return sum(not "\udc80" <= character <= "\udcbf" for character in text)


def share(all_of_them: Sequence[str], some: Sequence[str]) -> float:
    return len(some) / len(all_of_them)


def repeated(elements: Sequence[str]) -> list[str]:
    return [element for place, element in enumerate(elements) if element in set(elements[:place])]


def top_n_grams(words: Sequence[str], n: int) -> int:
    counts, ends = Counter[tuple[str, ...]](), dict[tuple[str, ...], int]()
    for place in range(len(words) - n + 1):
        gram = tuple(words[place : place + n])
        if place >= ends.get(gram, 0):
            counts[gram] += 1
            ends[gram] = place + n
    found = [(count, count * sum(map(length, gram))) for gram, count in counts.items() if count > 1]
    return max(found, default=(0, 0))[1]


def duplicate_n_grams(words: Sequence[str], n: int) -> int:
    seen, place, found = set[tuple[str, ...]](), 0, 0
    while place + n <= len(words):
        gram = tuple(words[place : place + n])
        if gram in seen:
            found += sum(map(length, gram))
            place += n
        else:
            seen.add(gram)
            place += 1
    return found
