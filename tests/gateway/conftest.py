"""A bucket in the local cloud, as the tests of the stores have it."""

from tests.stores.conftest import bucket, cloud

__all__ = ["bucket", "cloud"]
