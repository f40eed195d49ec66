"""Whether somebody may do what they ask for."""

from wavelift.localcloud.accounts import Credential
from wavelift.localcloud.oss.errors import OssError
from wavelift.localcloud.oss.model.store import ObjectStore
from wavelift.localcloud.policy import allows

READS = frozenset({"GetObject"})
WRITES = frozenset({"PutObject", "DeleteObject", "AbortMultipartUpload", "ListParts"})


class Access:
    """What the holder of a credential may do; None is somebody who did not say who they are."""

    def __init__(self, store: ObjectStore, credential: Credential | None, region: str, prefix: str) -> None:
        """`prefix` is that of the listing that is asked for, if it is one."""
        self._store = store
        self._prefix = prefix
        # Policies name a region as its id or as the location that buckets show.
        self._regions = region, f"oss-{region}"
        self._credential = credential

    def check(self, action: str, bucket: str, key: str) -> None:
        """Raises AccessDenied. `key` is empty for what is about a bucket, both for what is about the service."""
        if self._credential is None:
            if not self._is_public(action, bucket, key):
                raise OssError("AccessDenied", "You have no right to access this object because of bucket acl.")
            return
        resource = f"{bucket}/{key}" if key else bucket or "*"
        names = (f"acs:oss:{region}:{self._credential.account}:{resource}" for region in self._regions)
        about = {"oss:prefix": self._prefix} if action == "ListObjects" else {}
        if not allows(self._credential.policy, f"oss:{action}", *names, about=about):
            raise OssError("AccessDenied", "Access denied by authorizer's policy.")

    def _is_public(self, action: str, bucket: str, key: str) -> bool:
        if not key or action not in READS | WRITES:
            return False
        acl = self._store.buckets.get(bucket).acl
        if self._store.has(bucket, key):
            own = self._store.objects.get(bucket, key).meta.acl
            acl = acl if own == "default" else own
        return acl == "public-read-write" or (acl == "public-read" and action in READS)
