"""What is secret in an address is masked, and the rest still says where it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.storage.masking import MASK, below, mask, secret_parts, without_secrets

SECRET = "se7Cret"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        # user and password, whatever the password holds
        ("postgresql://me:secret@host/db", "postgresql://***@host/db"),
        ("postgresql://me:se@cret@host/db", "postgresql://***@host/db"),
        ("postgresql://me:se/cret@host/db", "postgresql://***@host/db"),
        ("postgresql://me:se?cret@host/db", "postgresql://***@host/db"),
        ("postgresql://me:se#cret@host/db", "postgresql://***@host/db"),
        ("postgresql://me:se cret\n@host/db", "postgresql://***@host/db"),
        ("postgresql://me:12/se?cret@host", "postgresql://***@host"),
        ("http://secret@host:5000", "http://***@host:5000"),
        ("jdbc:postgresql://me:secret@host/db", "jdbc:postgresql://***@host/db"),
        (" s3://AKIA:secret@bucket/x", " s3://***@bucket/x"),
        ("s3://AKIA:secret", "s3://AKIA:***"),
        ("me:secret@host/db", "***@host/db"),
        (
            "abfs://box:se/c@ret@account.dfs.core.windows.net/a",
            "abfs://box:***@account.dfs.core.windows.net/a",
        ),
        # every value of a query, and fragments
        ("postgresql://host/db?user=me&password=a b", "postgresql://host/db?user=***&password=***"),
        ("https://host/v1?code=se?cret;x=1", "https://host/v1?code=***&x=***"),
        ("https://host/v1?secret", "https://host/v1?***"),
        ("https://host/v1?a=b#secret", "https://host/v1?a=***#***"),
        ("https://host/v1#secret", "https://host/v1#***"),
        ("sqlite:///x.db?key=secret", "sqlite:///x.db?key=***"),
        # keys in the path
        ("https://host/v1;token=secret/x", "https://host/v1;token=***/x"),
        ("https://host/token=secret/x", "https://host/token=***/x"),
        ("https://host/api-key/hush/x", "https://host/api-key/***/x"),
        ("https://host/sk-proj-0123456789/v1", "https://host/***/v1"),
        ("https://host/hooks/T0A/Xa9dK2lQ0pZ8vR3t", "https://host/hooks/T0A/***"),
        ("s3://box/0123456789abcdef0123456789abcdef/x", "s3://box/***/x"),
        ("s3://box/3f2a9c01-0a1b-4c2d-8e3f-0123456789ab", "s3://box/***"),
        # DSNs
        ("host=h user=me password=se cret dbname=x", "host=h user=*** password=*** dbname=x"),
        ("Server=h;UID=me;Pwd='a; b';", "Server=h;UID=***;Pwd=***;"),
    ],
)
def test_secrets_are_masked(address, shown):
    assert mask(address) == shown
    assert mask(shown) == shown


@pytest.mark.parametrize(
    "address",
    [
        "http://host:5000/path",
        "http://[::1]:5000/path",
        "s3://bucket/me@home.org/x",
        "s3://bucket/MyCompanyExperiments2024/run-3",
        "sqlite:////home/me@home/x.db",
        "file:///data/0123456789abcdef0123456789abcdef",
        "abfs://box@account.dfs.core.windows.net/a",
        "/data/a@b",
        "/data/fold=3/storage",
        "~/x:y@z",
        "storage",
    ],
)
def test_an_address_without_a_secret_stays(address):
    assert mask(address) == address


def test_words_of_others():
    assert without_secrets("no answer from http://me:secret@h/api, asked http://i:secret@g") == (
        "no answer from http://***@h/api, asked http://***@g"
    )
    assert without_secrets("x: s3://A:se cret@b, password='a b', max_tokens=5") == (
        "x: s3://***@b, password=***, max_tokens=5"
    )


def test_raypipes_own_digests_stay_in_words():
    line = "s3://bucket/tokens/pydoc-0123456789abcdef/attempt-0123456789ab is damaged"
    page = "http://host:5000/runs/0123456789abcdef0123456789abcdef"
    assert without_secrets(line) == line and without_secrets(page) == page


def test_a_path_below_comes_before_the_parameters():
    assert below("s3://***@b/x?region=***", "runs/0a") == "s3://***@b/x/runs/0a?region=***"
    assert below("/data/", "a") == "/data/a" and below("odd?name", "a") == "odd?name/a"


PLACES = [
    *("s3://A:{}@bucket/x", "http://me:{}@host", "https://host/v1?code={}", "https://host/v1?{}"),
    *("https://host/v1?a=1#{}", "host=h password='{}' dbname=x", "https://host/;key={}/x"),
]


@given(
    place=st.sampled_from(PLACES),
    noise=st.text(st.characters(codec="utf-8", exclude_characters="';"), max_size=8),
    before=st.booleans(),
)
def test_no_character_in_a_secret_uncovers_it(place, noise, before):
    if "/;key" in place:
        noise = noise.replace("/", "")
    if place.endswith("?{}"):  # a name and its value, unless nothing follows
        noise = "=" * noise.count("=")
    typed = place.format(noise + SECRET if before else SECRET + noise)
    assert SECRET not in mask(typed), mask(typed)
    assert mask(mask(typed)) == mask(typed)


def test_the_secret_parts_as_libraries_may_say_them():
    parts = secret_parts("s3://AKIA:a%2Fb%2Bc@bucket/x?secret_key=hush&region=eu-west-1#end")
    assert {"AKIA:a%2Fb%2Bc", "a%2Fb%2Bc", "a/b+c", "hush", "end"} <= parts
    assert "eu-west-1" not in parts and MASK not in parts
    assert secret_parts("host=h password='a b'") == {"a b"}
