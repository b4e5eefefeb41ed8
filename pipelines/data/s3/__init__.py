"""Data sets in S3: fetched into a cache on disk, checked, bounded, and resumed where a connection broke."""

from pathlib import Path

from pipelines.data.folders import cache_folder
from pipelines.data.s3.cache import Cache

SCHEME = "s3://"
GB = 10**9


def local_copy(uri: str, cache_gb: float) -> Path:
    """The file or folder behind `s3://bucket/key` or `s3://bucket/prefix`, on this disk. Raises DataError."""
    return Cache(cache_folder() / "s3", int(cache_gb * GB)).local_copy(uri)


__all__ = ["GB", "SCHEME", "Cache", "local_copy"]
