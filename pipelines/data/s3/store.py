"""The store: what lies there, and what its errors mean.

Credentials and endpoint come from the environment, by the rules of boto3.
No error text holds more of them than the name of the variable to set.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)

from pipelines.errors import DataError
from pipelines.names import did_you_mean

URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<key>.*))?", re.DOTALL)
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
CONNECTIONS = 8
GONE = {"NoSuchKey", "404", "NotFound"}
ANSWERS = {  # code of the store: (what happened, what to do)
    "NoSuchBucket": ("there is no such bucket", "correct the bucket in data.path"),
    "InvalidAccessKeyId": ("the store does not know the access key", CREDENTIALS),
    "SignatureDoesNotMatch": ("the secret does not belong to the access key", CREDENTIALS),
    "ExpiredToken": ("the credentials have run out", "renew them"),
    "InvalidToken": ("the session token is not valid", "renew the credentials"),
    "RequestTimeTooSkewed": ("the clocks of this machine and the store differ", "set this machine's clock"),
    "AccessDenied": ("the store denies access", "let these credentials list the bucket and get its objects"),
    "403": ("the store denies access", "let these credentials list the bucket and get its objects"),
    "PermanentRedirect": ("the bucket lies in another region", "set AWS_REGION to the bucket's"),
}


@dataclass(frozen=True, slots=True)
class Remote:
    """One object as it was listed: its name below the prefix, its key, its bytes, and the tag that changes with it."""

    name: str
    key: str
    size: int
    etag: str


def parse(uri: str) -> tuple[str, str]:
    """(bucket, key or prefix). Raises DataError."""
    match = URI.fullmatch(uri)
    if match is None:
        raise DataError(f"{uri!r} names no place in a store", "data.path", "write s3://bucket/key or s3://bucket/prefix")
    return match["bucket"], match["key"] or ""


def endpoint() -> str | None:
    """Where the store answers; None for Amazon's own. The variable for MLflow's artifacts counts last."""
    return next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), None)


def open_client() -> Any:
    """Raises DataError."""
    options = Config(
        retries={"mode": "standard"},
        connect_timeout=10,
        read_timeout=30,
        max_pool_connections=CONNECTIONS + 2,
    )
    with s3_errors("the client"):
        try:
            return boto3.session.Session().client("s3", endpoint_url=endpoint(), config=options)
        except ValueError as exc:  # botocore says so of an endpoint, and quotes it
            raise DataError("the endpoint is no address", " or ".join(ENDPOINTS), "set it like http://host:9000") from exc


@contextlib.contextmanager
def s3_errors(uri: str) -> Iterator[None]:
    """The store's failures as ours."""
    try:
        yield
    except ClientError as exc:
        code = code_of(exc)
        what, fix = ANSWERS.get(code, (f"the store answers {code}", "see to the store, then run again"))
        raise DataError(f"{what} [{code}]", place_of(uri), fix) from exc
    except (NoCredentialsError, PartialCredentialsError) as exc:
        raise DataError("there are no credentials for the store, or half of them", place_of(uri), CREDENTIALS) from exc
    except (ProfileNotFound, CredentialRetrievalError, TokenRetrievalError) as exc:
        raise DataError(f"no credentials could be had ({type(exc).__name__})", place_of(uri), CREDENTIALS) from exc
    except BotoCoreError as exc:
        name = re.sub(r"(?<!^)(?=[A-Z])", " ", type(exc).__name__.removesuffix("Error")).lower()
        fix = f"see that the store is up and reachable ({' or '.join(ENDPOINTS)}), then run again"
        raise DataError(f"the store cannot be reached: {name}", place_of(uri), fix) from exc


def code_of(exc: ClientError) -> str:
    return str(exc.response.get("Error", {}).get("Code", "nothing"))


def place_of(uri: str) -> str:
    """The address with the endpoint, whose user and password, should it hold such, are left out."""
    address = endpoint()
    return uri if address is None else f"{uri} at {re.sub('//[^/]*@', '//', address)}"


def listing(client: Any, uri: str) -> tuple[Remote, ...]:
    """The object of that key alone, or all below that prefix, in the order of their keys. Raises DataError."""
    bucket, key = parse(uri)
    with s3_errors(uri):
        single = _single(client, bucket, key) if key and not key.endswith("/") else None
        if single is not None:
            return (single,)
        prefix = f"{key.rstrip('/')}/" if key else ""
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        found = [item for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")]
        if not found:
            near = _names_beside(client, bucket, key.rstrip("/"))
            raise DataError("there is no such key or prefix", place_of(uri), did_you_mean(key.rstrip("/"), near))
    return tuple(
        Remote(_inside(item["Key"].removeprefix(prefix), uri), item["Key"], item["Size"], item["ETag"]) for item in found
    )


def _single(client: Any, bucket: str, key: str) -> Remote | None:
    """The first key with a prefix is the prefix itself, where there is such. Whoever may not list may still look at it."""
    name = PurePosixPath(key).name
    try:
        first = client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
        if not first or first[0]["Key"] != key:
            return None
        return Remote(_inside(name, key), key, first[0]["Size"], first[0]["ETag"])
    except ClientError as exc:
        if code_of(exc) != "AccessDenied":
            raise
        try:
            head = client.head_object(Bucket=bucket, Key=key)
        except ClientError:
            raise exc from None
        return Remote(_inside(name, key), key, head["ContentLength"], head["ETag"])


def _names_beside(client: Any, bucket: str, key: str) -> list[str]:
    parent = key[: key.rfind("/") + 1]
    page = client.list_objects_v2(Bucket=bucket, Prefix=parent, Delimiter="/", MaxKeys=1000)
    folders = [item["Prefix"].rstrip("/") for item in page.get("CommonPrefixes", [])]
    return [*folders, *(item["Key"] for item in page.get("Contents", []))]


def _inside(name: str, uri: str) -> str:
    """A name that stays below the folder it is written to. Raises DataError."""
    parts = name.split("/")
    if not all(parts) or {".", ".."} & set(parts) or "\0" in name or "\\" in name:
        raise DataError(f"the key {name!r} cannot be a file name", uri, "rename the object")
    return name
