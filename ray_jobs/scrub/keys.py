"""Keys and tokens that open an account or a machine, as far as their form gives them away."""

import base64
import binascii

_SPACE = r"(?:[ \t\r\n]|\\[nr])"  # a key within a string literal has its line ends escaped

# A private key's text form (RFC 7468, RFC 1421's header lines, RFC 9580's armor). A page may break off within a key, so
# that the last line is no part of what must be there.
PRIVATE_KEY = (
    rf"-----BEGIN (?:[A-Z0-9]+ ){{0,3}}PRIVATE KEY(?: BLOCK)?-----(?:{_SPACE}+[A-Za-z\-]+: [^\r\n\\]{{1,100}})*"
    rf"(?:{_SPACE}+[A-Za-z0-9+/=]{{32,}})+"
    rf"(?:(?:{_SPACE}+[A-Za-z0-9+/=]{{1,63}}){{0,2}}{_SPACE}*-----END [A-Z0-9 ]{{1,40}}-----)?"
).encode()

_FEWEST_SYMBOLS = 10
"""Sixteen random characters of an alphabet of 32 have fewer distinct ones once in hundreds; a row of X has one."""


def is_key(text: bytes, start: int, end: int) -> bool:
    """Whether it can be a real key: AKIAXXXXXXXXXXXXXXXX and AKIAIOSFODNN7EXAMPLE are documentation's."""
    found = text[start:end]
    return len(set(found)) >= _FEWEST_SYMBOLS and not found.endswith(b"EXAMPLE")


def is_key_with_digits(text: bytes, start: int, end: int) -> bool:
    """For forms that words joined by hyphens have too."""
    return is_key(text, start, end) and sum(48 <= byte <= 57 for byte in text[start:end]) >= 3


def is_web_token(text: bytes, start: int, end: int) -> bool:
    """RFC 7519: the first part is a JSON object in base64url that names an algorithm (RFC 7515, 4.1.1)."""
    header = text[start:end].partition(b".")[0]
    try:
        return b'"alg"' in base64.urlsafe_b64decode(header + b"=" * (-len(header) % 4))
    except binascii.Error:  # a length that no bytes have
        return False
