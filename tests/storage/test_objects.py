"""URIs of buckets mean for obstore what they mean for pyarrow."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from raypipe.config import ConfigError
from raypipe.storage.objects import objects_of

FS = SimpleNamespace(region="eu-west-3")
KEYS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)


def s3(uri: str):
    store = objects_of(uri, FS)
    return store.config, store.prefix


def test_an_s3_uri_says_bucket_prefix_endpoint_and_region():
    uri = "s3://my-bucket/a/b?endpoint_override=127.0.0.1:9000&scheme=http&region=us-east-2"
    config, prefix = s3(uri)
    assert prefix == "a/b" and config["bucket"] == "my-bucket"
    assert config["endpoint"] == "http://127.0.0.1:9000" and config["region"] == "us-east-2"


def test_keys_in_a_uri_are_unquoted():
    config, _ = s3("s3://me:a%2Fb%2Bc@bucket")
    assert config["access_key_id"] == "me" and config["secret_access_key"] == "a/b+c"


def test_what_the_uri_leaves_open_is_pyarrows_and_the_environments(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    config, prefix = s3("s3://bucket")
    assert config["region"] == "eu-west-3" and config["endpoint"] == "http://127.0.0.1:9000"
    assert prefix is None
    config, _ = s3("s3://bucket?endpoint_override=other:1")
    assert config["endpoint"] == "https://other:1"


def test_google_and_azure():
    from obstore.store import AzureStore, GCSStore

    google = objects_of("gs://bucket/a", None)
    assert isinstance(google, GCSStore) and google.config["bucket"] == "bucket"
    azure = objects_of("abfs://box@account.dfs.core.windows.net/a", None)
    assert isinstance(azure, AzureStore) and azure.config["account_name"] == "account"


def test_a_store_without_conditional_writes_is_refused():
    with pytest.raises(
        ConfigError, match=r"storage hdfs://\*\*\*@host/a: expected .* s3://.* set storage="
    ):
        objects_of("hdfs://user:secret@host/a", None)
