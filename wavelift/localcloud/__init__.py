"""A twin of the part of Alibaba Cloud ECS that a migration needs, on files and QEMU.

Three layers: `rpc` speaks HTTP (`server` binds the sockets); `actions` turn requests into calls and results into
responses; `model` holds resources and rules and knows no HTTP. Below the model: `store` (SQLite), `states` and `engine`
(moves that take time), `disks` (files), `machines` (QEMU), `hosts` (scripts on this machine).

Where it differs from the real service:

- There is one account. A key that lasts has all its rights; only the policy of an STS session limits one.
- A snapshot is copied, and its disk held still, before CreateSnapshot replies (see `model.snapshots`).
- Machines boot by BIOS only and get fewer cores and less memory than their type names (see `machines`). User data
  reaches host instances only.
- An instance's private and public address are one address of the loopback network, and only TCP ports that a security
  group opens lead to a machine; ranges of more than 64 ports are not expanded (see `model.network`).
- RunInstances runs one instance per request. Screenshots may be taken at any rate. There are no quotas but those on
  disks per instance and snapshots per disk, no prices, no throttling.
- CreateDisk refuses a size below the snapshot's with InvalidDiskSize.TooSmall, where newer documentation says that the
  snapshot's size is used: a caller that satisfies the strict rule satisfies both.
"""
