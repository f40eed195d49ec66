"""A twin of the parts of Alibaba Cloud that a migration needs (ECS, OSS, STS), on files and QEMU.

Three layers: `rpc` and `oss.wire` speak HTTP (`server` binds the sockets); `actions` turn requests into calls and
results into responses; `model` and `oss.model` hold resources and rules and know no HTTP. Below them: `store` (SQLite),
`states` and `engine` (moves that take time), `disks` and `volume` (files), `runtimes` (QEMU, scripts on this host).
`faults` makes all of it misbehave, on request. Where it differs from the real service is said in docs/localcloud.md.
"""
