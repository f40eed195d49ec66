"""The demo's manifest by another route."""

from __future__ import annotations

from pathlib import Path

from wavelift.manifest.route import Route

# What the demo's manifest says of the disks that travel; here they are a folder that stays where it is.
_DISK = "/mnt/wavelift-01"


def by(route: Route, shipped: Path, text: str) -> str:
    """The manifest's text with `route` changed, and `shipped` for the folder of the disk that travels."""
    if text.count("route: direct") != 1 or text.count(_DISK) != 2:
        raise ValueError(f"this manifest has not one `route: direct`, or not {_DISK} twice")
    return text.replace("route: direct", f"route: {route.value}").replace(_DISK, str(shipped))
