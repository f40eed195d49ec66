"""What a user wants of a guest beyond that it boots. By default it is kept as it is, as far as that can be.

A file of them is YAML, and so is the section `guest` of a migration in a manifest:

    network:
      interfaces:
        - name: ens33
          method: static
          addresses: [10.0.0.5/24]
          gateway: 10.0.0.1
          dns: [10.0.0.2]
        - method: dhcp
    hostname: web-1
    grow: true
    agents: [qemu-guest-agent]
    first_boot:
      - name: announce
        script: |
          #!/bin/sh
          logger moved
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Address = IPv4Interface | IPv6Interface
Host = IPv4Address | IPv6Address


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Interface(_Strict):
    """One network card. The order is that of the instance's cards, its primary one first."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,15}$")] | None = Field(
        default=None, description="what the guest calls it, and will go on calling it; default: the next it configures"
    )
    method: Literal["keep", "dhcp", "static"] = "keep"
    addresses: Annotated[list[Address], Field(max_length=64)] = []
    gateway: Host | None = None
    dns: Annotated[list[Host], Field(max_length=8)] = []
    search: Annotated[list[Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,253}$")]], Field(max_length=8)] = []

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.method == "static" and not self.addresses:
            raise ValueError("`method: static` needs `addresses`, such as [10.0.0.5/24]")
        if self.method != "static" and (self.addresses or self.gateway):
            raise ValueError("`addresses` and `gateway` go with `method: static` only")
        if self.method == "keep" and (self.dns or self.search):
            raise ValueError("`dns` and `search` go with `method: dhcp` or `method: static`")
        return self


class Network(_Strict):
    interfaces: Annotated[list[Interface], Field(max_length=16)] = []


class Script(_Strict):
    """Run once as root when the instance has booted, in the order of the list. Its output is in the system's log."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
    script: Annotated[str, Field(min_length=1, max_length=65536)]


class Wishes(_Strict):
    network: Network = Network()
    hostname: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")] | None = None
    grow: bool = Field(default=False, description="the last partition of the boot disk and its file system fill it")
    agents: list[Literal["qemu-guest-agent", "cloud-assistant"]] = Field(
        default=[], description="installed at the first boot, from where the guest gets its packages"
    )
    first_boot: Annotated[list[Script], Field(max_length=32)] = []
