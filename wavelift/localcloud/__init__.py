"""A twin of the part of Alibaba Cloud ECS that a migration needs, on files and QEMU.

Three layers: `rpc` speaks HTTP (`server` binds the sockets); `actions` turn requests into calls and results into
responses; `model` holds resources and rules and knows no HTTP. Below the model: `store` (SQLite), `states` and `engine`
(moves that take time), `disks` (files), `machines` (QEMU), `hosts` (scripts on this machine).

Where it differs from the real service:

- There is one account. A key that lasts has all its rights; only the policy of an STS session limits one.
- A snapshot is copied, and its disk held still, before CreateSnapshot replies (see `model.snapshots`).
- Machines get fewer cores and less memory than their type names (see `runtimes.qemu`), and share an amount of memory.
  Passwords and key pairs reach no guest: images are booted as they are.
- An instance is reached by one address of the loopback network, which is its public address, and its private one too
  unless another was asked for. Only TCP ports that a security group opens lead to a machine; ranges of more than 64
  ports are not expanded (see `model.network`).
- There are no prices, and no throttling but that of screenshots and what faults ask for.
- CreateDisk refuses a size below the snapshot's with InvalidDiskSize.TooSmall, where newer documentation says that the
  snapshot's size is used: a caller that satisfies the strict rule satisfies both.
"""
