from wavelift.localcloud.rpc.formats import timestamp

__all__ = ["timestamp"]
