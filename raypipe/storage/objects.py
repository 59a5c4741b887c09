"""obstore's stores for the URIs that pyarrow opens: pyarrow has no conditional write."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from raypipe.config import ConfigError
from raypipe.storage.masking import mask

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem


def objects_of(uri: str, fs: Any) -> Any:
    """The obstore store whose keys are paths below a storage root.

    Args:
        uri: the root, as pyarrow reads it: `?endpoint_override=&scheme=&region=` and keys in it
            count here, too.
        fs: the file system that pyarrow opened for it.

    Raises:
        ConfigError: nobody knows how to create a file only if it is absent there.
    """
    from obstore import store as stores

    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    prefix = unquote(parts.path).strip("/") or None
    if parts.scheme == "s3":
        return stores.S3Store(
            parts.hostname or "", prefix=prefix, **_s3_options(parts, options, fs)
        )
    if parts.scheme in ("gs", "gcs"):
        return stores.GCSStore(parts.hostname or "", prefix=prefix)
    if parts.scheme in ("abfs", "abfss"):
        url = f"{parts.scheme}://{_without_password(parts)}{parts.path}"
        key: Any = {"account_key": unquote(parts.password)} if parts.password else {}
        return stores.AzureStore.from_url(url, **key)
    raise ConfigError(
        f"storage {mask(uri)}: expected a directory or a URI that begins with s3://, "
        f"gs:// or abfs://, found {parts.scheme}://, where no file can be created only if it is "
        "absent, so that a second job could lose finished work; set storage= to one of those"
    )


def _s3_options(parts: SplitResult, options: dict[str, str], fs: S3FileSystem) -> dict[str, Any]:
    """Region, endpoint and keys; what is not in the URI comes from the environment, as in pyarrow.

    Keys of a profile come from boto3, if it is installed; obstore reads the environment, and asks
    the machine's metadata service.
    """
    endpoint = options.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL_S3")
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL") or ""
    if endpoint and "://" not in endpoint:
        endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
    chosen: dict[str, Any] = {"region": options.get("region") or fs.region}
    if endpoint:
        chosen["endpoint"] = endpoint
        chosen["client_options"] = {"allow_http": endpoint.startswith("http://")}
    if parts.username and parts.password:
        chosen["access_key_id"] = unquote(parts.username)
        chosen["secret_access_key"] = unquote(parts.password)
    elif "AWS_ACCESS_KEY_ID" not in os.environ and (provider := _profile()) is not None:
        chosen["credential_provider"] = provider
    return chosen


def _profile() -> Any:
    """boto3's credentials; None without boto3, or where it finds none."""
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return None
    session = boto3.Session()
    return Boto3CredentialProvider(session) if session.get_credentials() is not None else None


def _without_password(parts: SplitResult) -> str:
    user, at, host = parts.netloc.rpartition("@")
    return f"{user.partition(':')[0]}{at}{host}"
