"""Disks that are larger than they were: the partition table's copy at the end, the last partition and what it holds."""
