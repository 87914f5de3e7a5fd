"""Figures and text as a reader wants them: 1,803, 4.2 MB, 3 min 5 s, 81.4%."""

import math
import re
from typing import Any

# A page's text is anyone's: control characters would make the HTML ill-formed, and marks of direction would turn round
# what stands beside them (Unicode's UAX #9; "Trojan Source", CVE-2021-42574).
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u2028-\u202e\u2066-\u2069\ufdd0-\ufdef\ufffe\uffff]"
)


def printable(text: str) -> str:
    """The text without characters that HTML forbids or that turn round the reading order: U+FFFD in their place."""
    return _UNPRINTABLE.sub("\ufffd", text)


# What has the form of personal data, drawn widely: e-mail and IP addresses, secret keys, IBANs, numbers of seven digits
# and more.
_PERSONAL = re.compile(
    r"[^\s@<>\"'(),;:]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"
    r"|\b\d{1,3}(?:\.\d{1,3}){3}\b"
    r"|\b(?:[0-9a-fA-F]{1,4}:){3,7}:?[0-9a-fA-F]{1,4}\b"
    r"|-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,9}-----(?:\s*[A-Za-z0-9+/=]{32,})*"
    r"|\b(?:AKIA|ASIA|AIza|gh[opusr]_|github_pat_|xox[a-z][.-]|xapp-|[rs]k_live_|sk-|hf_|eyJ)[\w.-]{16,}"
    r"|\b[A-Z]{2}\d\d(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?\b"
    r"|\+?\d(?:[ ().-]{0,2}\d){6,}"
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def masked(text: str) -> str:
    """The text with what looks like personal data as [masked]: a report is passed on more freely than a corpus, and
    shows documents as they were before they were scrubbed."""
    return _PERSONAL.sub(lambda found: found[0] if _DATE.fullmatch(found[0]) else "[masked]", text)


def excerpt(text: str, length: int) -> str:
    """The beginning of a text in one line, cut at a word's end where there is one."""
    line = " ".join(printable(text[: 4 * length]).split())
    if len(line) <= length:
        return line
    cut = line.rfind(" ", length // 2, length)
    return line[: cut if cut > 0 else length].rstrip() + " …"


def close_lines(text: str) -> str:
    """The text without its empty lines."""
    return re.sub(r"\s*\n\s*", "\n", text)


def count(value: float) -> str:
    """1,803."""
    return f"{value:,.0f}"


def plural(number: int, one: str) -> str:
    """1 shard, 3 shards."""
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def compact(value: float) -> str:
    """At most four digits: 0.004, 3.25, 812, 1.8k, 4.2M."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}{unit}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"


def scientific(value: float) -> str:
    """3e11, 2.5e20."""
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def data_size(num_bytes: float) -> str:
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if num_bytes >= limit:
            return f"{num_bytes / limit:.3g} {unit}"
    return f"{num_bytes:.0f} bytes"


def duration(seconds: float) -> str:
    """0.4 s, 12 s, 3 min 5 s, 2 h 10 min, 3.5 days."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    if seconds < 48 * 3600:
        hours, rest = divmod(round(seconds / 60), 60)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{seconds / 86400:,.1f} days"


def share(part: float, whole: float) -> str:
    if not whole:
        return "–"
    percent = 100 * part / whole
    return f"{percent:.0f}%" if percent in {0, 100} else f"{percent:.1f}%" if percent >= 0.1 else "< 0.1%"


def dollars(amount: float) -> str:
    if 0 < amount < 0.0001:
        return "< $0.0001"
    return f"${amount:,.2f}" if amount >= 0.01 or amount == 0 else f"${amount:.4f}"


def figure(value: Any) -> str:
    """Any metric or counter."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**10 else compact(value)
    if value and math.isfinite(value) and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.4g}"
    return f"{value:,.4f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:,.1f}"


def words(name: str) -> str:
    """bits_per_byte -> bits per byte."""
    return name.replace("_", " ").replace(".", ": ")
