import random
import re
import string

import pytest

from ray_jobs.scrub import accounts
from ray_jobs.scrub.patterns import PLACEHOLDERS
from ray_jobs.scrub.scanner import Scanner

SCANNER = Scanner(tuple(PLACEHOLDERS))
UPPER, ALNUM = string.ascii_uppercase + string.digits, string.ascii_letters + string.digits
URL_SAFE = ALNUM + "-_"


def scrubbed(text: str) -> str:
    data = text.encode()
    for span in reversed(SCANNER.find(data)):
        data = data[: span.start] + PLACEHOLDERS[span.kind] + data[span.end :]
    return data.decode()


def made(alphabet: str, length: int) -> str:
    return "".join(random.Random(length).choices(alphabet, k=length))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # Numbers that issuers and payment services give for tests.
        ("card 4111111111111111.", "card <CREDIT_CARD>."),
        ("6362970000457013 6370950000000005", "<CREDIT_CARD> <CREDIT_CARD>"),
        ("ST23 0001 0001 0051 8453 1014 6", "<IBAN>"),
        ("4012 8888 8888 1881 12/27 123", "<CREDIT_CARD> 12/27 123"),
        ("5555-5555-5555-4444, 2223003122003222", "<CREDIT_CARD>, <CREDIT_CARD>"),
        ("3782 822463 10005 / 378282246310005", "<CREDIT_CARD> / <CREDIT_CARD>"),
        ("3056 930902 5904 or 30569309025904", "<CREDIT_CARD> or <CREDIT_CARD>"),
        ("#6011111111111117;3530111333300000", "#<CREDIT_CARD>;<CREDIT_CARD>"),
        ("card 6205 5000 0000 0000 004", "card <CREDIT_CARD>"),
        ("Visa: 4222222222222", "Visa: <CREDIT_CARD>"),
        ("1234 4111111111111111", "1234 <CREDIT_CARD>"),
        ("номер 4111111111111111", "номер <CREDIT_CARD>"),
        ("4012\u00a08888\u00a08888\u00a01881", "<CREDIT_CARD>"),
        # The registry's examples.
        ("DE89 3704 0044 0532 0130 00 bitte", "<IBAN> bitte"),
        ("IBAN=GB29NWBK60161331926819", "IBAN=<IBAN>"),
        ("my iban is gb29nwbk60161331926819", "my iban is <IBAN>"),
        ("FR14 2004 1010 0505 0001 3M02 606, NO9386011117947", "<IBAN>, <IBAN>"),
        ("IBAN:\u00a0DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000\u00a0BIC", "IBAN:\u00a0<IBAN>\u00a0BIC"),
        ("MT84MALT011000012345MTLCAST001S", "<IBAN>"),
        ("BE68-5390-0754-7034 that will", "<IBAN> that will"),
    ],
)
def test_cards_and_accounts_give_way(text: str, wanted: str) -> None:
    assert scrubbed(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112 4012 8888 8888 1882",  # Luhn
        "9111111111111111 7992739871300006 1111111111111117",  # no issuer's
        "4222222222222, EAN 4006381333931, UPC 501864667909",  # bar codes have 12 and 13 digits
        "0.4111111111111111 x4111111111111111 id=4111111111111111 /4111111111111111/ 4111111111111111-2",
        "2990 4012 8888 8888 1881 2990",  # a table
        "4012 8888-8888 1881",
        "DE88370400440532013000 DE89370400440532013001",  # MOD 97-10
        "ZZ89370400440532013000 DE893704004405320130 DE8937040044053201300000",
        "De89370400440532013000 aDE89370400440532013000 DE89370400440532013000/1",
        "GB00NWBK60161331926819 GB99NWBK60161331926819",
    ],
)
def test_what_only_looks_like_an_account_stays(text: str) -> None:
    assert scrubbed(text) == text


# Made anew in each run, for a key that stands in a repository sets off those who look for leaked ones.
PEM = "\n".join([made(ALNUM, 64), made(ALNUM + "+/", 64), made(ALNUM, 40) + "=="])
KEYS = {
    "aws": "AKIA" + made(UPPER, 16),
    "aws session": "ASIA" + made(UPPER, 16),
    "github": "ghp_" + made(ALNUM, 36),
    "github app": "ghs_" + made(ALNUM, 36),
    "github fine-grained": "github_pat_" + made(ALNUM, 22) + "_" + made(ALNUM, 59),
    "slack": "xoxb-" + made(string.digits, 12) + "-" + made(string.digits, 13) + "-" + made(ALNUM, 24),
    "stripe": "sk_live_" + made(ALNUM, 24),
    "google": "AIza" + made(URL_SAFE, 35),
    "openai": "sk-" + made(ALNUM, 48),
    "openai project": "sk-proj-" + made(URL_SAFE, 120) + "x",
    "anthropic": "sk-ant-api03-" + made(URL_SAFE, 93) + "AA",
    "hugging face": "hf_" + made(ALNUM, 34),
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0." + made(URL_SAFE, 42) + "x",
    "pem": f"-----BEGIN RSA PRIVATE KEY-----\n{PEM}\n-----END RSA PRIVATE KEY-----",
    "pem in a literal": f"-----BEGIN PRIVATE KEY-----\n{PEM}\n-----END PRIVATE KEY-----".replace("\n", "\\n"),
    "pem in one line": f"-----BEGIN EC PRIVATE KEY-----\n{PEM}\n-----END EC PRIVATE KEY-----".replace("\n", " "),
    "pem, encrypted": "-----BEGIN RSA PRIVATE KEY-----\r\nProc-Type: 4,ENCRYPTED\r\nDEK-Info: AES-128-CBC,00\r\n\r\n"
    f"{PEM}\r\n-----END RSA PRIVATE KEY-----",
    "pgp": f"-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 2\n\n{PEM}\n=aBcD\n-----END PGP PRIVATE KEY BLOCK-----",
}


@pytest.mark.parametrize("name", KEYS)
def test_keys_give_way(name: str) -> None:
    assert scrubbed(f"key = '{KEYS[name]}', then") == "key = '<KEY>', then"
    assert scrubbed(f"ключ {KEYS[name]}\n") == "ключ <KEY>\n"


def test_a_private_key_that_breaks_off_gives_way_as_far_as_it_goes() -> None:
    assert scrubbed("see -----BEGIN PRIVATE KEY-----\n" + made(ALNUM, 64) + "\nand so on") == "see <KEY>\nand so on"


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7EXAMPLE " + "AKIA" + "X" * 16,
        "ghp_" + "x" * 36 + " hf_your_token sk-your-api-key-goes-here-please-do-not-share",
        "sk-fading-circle-and-a-very-long-class-name-of-a-spinner xoxb-your-token-goes-here",
        "eyJhIjoiYiJ9eyJh.eyJhIjoiYiJ9.notatokenbecausenoalgorithm",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "-----BEGIN PUBLIC KEY-----\n" + PEM + "\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\n" + PEM + "\n-----END CERTIFICATE-----",
        "task-" + "0123456789abcdef" * 3,
    ],
)
def test_what_only_looks_like_a_key_stays(text: str) -> None:
    assert scrubbed(text) == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("DE89 4111 1111 1111 1111 11", "<IBAN>"),  # has the digits of a card within
        ("https://" + KEYS["github"] + "@example.org/x.git", "https://<KEY>@example.org/x.git"),
        ("tel 4111111111111111", "tel <CREDIT_CARD>"),
        (KEYS["slack"], "<KEY>"),
        ("4111111111111111@example.org", "<EMAIL>"),
    ],
)
def test_what_two_kinds_claim_gives_one_placeholder(text: str, wanted: str) -> None:
    assert scrubbed(text) == wanted


def test_lengths_and_check_digits_are_those_of_another_library() -> None:
    """python-stdnum's copy of the IBAN registry, country by country, and its Luhn."""
    pytest.importorskip("stdnum", reason="needs python-stdnum: pip install 'headrace[test]'")
    from stdnum import luhn, numdb

    ours = {country: length for length, countries in accounts._LENGTHS.items() for country in countries.split()}
    codes = [first + second for first in string.ascii_uppercase for second in string.ascii_uppercase]
    described = {code: numdb.get("iban").info(code)[0][1].get("bban") for code in codes}
    theirs = {
        code: 4 + sum(int(number) for number in re.findall(r"(\d+)!", form)) for code, form in described.items() if form
    }
    assert ours == theirs and len(ours) >= 89
    chance = random.Random(3)
    for length in range(12, 20):
        for _ in range(200):
            digits = "".join(chance.choices("0123456789", k=length))
            assert accounts._passes_luhn(digits.encode()) == luhn.is_valid(digits)
