"""The demo's manifest with one mistake each, and what the failed task must say about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Broken:
    """`old` becomes `new` in the demo's manifest; the task `step` must fail saying all of `says`."""

    old: str
    new: str
    step: str
    says: tuple[str, ...]


BROKEN = {
    "missing-disk": Broken(
        "- id: data",
        "- id: dota",
        "preflight",
        ("Disk dota is not offered", "it offers: data, system", "Correct source.disks"),
    ),
    "small-volume": Broken(
        "boot: true",
        "boot: true\n          volume_gib: 1",
        "preflight",
        ("Disk system has", "would have 1 GiB", "Set volume_gib of system to"),
    ),
    "wrong-token": Broken(
        "agent: wavelift_agent ",
        "agent: agent_wrong_token ",
        "preflight",
        ("connection agent_wrong_token", "[unauthorized]", "What to do:"),
    ),
    "wrong-pin": Broken(
        "agent: wavelift_agent ",
        "agent: agent_wrong_pin ",
        "preflight",
        ("connection agent_wrong_pin", "[wrong_fingerprint]", "0" * 64, "nothing was sent to it", "What to do:"),
    ),
    "agent-gone": Broken(
        "agent: wavelift_agent ",
        "agent: agent_gone ",
        "preflight",
        ("connection agent_gone", "[service_unreachable]", "cannot be reached", "Check that the service runs"),
    ),
    "wrong-key": Broken(
        "connection: wavelift_cloud ",
        "connection: cloud_wrong_key ",
        "preflight",
        ("connection cloud_wrong_key", "SignatureDoesNotMatch", "Check the access key"),
    ),
    "dead-gateway": Broken(
        "connection: wavelift_cloud ",
        "connection: cloud_dead_gateway ",
        "provision",
        ("The gateway instance i-", "has stopped", "/no/such/gateway", "Check gateway_image and gateway_command"),
    ),
}


def broken_manifests(demo: str) -> dict[str, str]:
    """By wave name, the text of each; and one that is no valid manifest at all."""
    texts = {"unknown-field": demo.replace("  instance_type:", "  instnce_type:")}
    for name, mistake in BROKEN.items():
        assert mistake.old in demo
        texts[name] = demo.replace("wave: demo", f"wave: {name}").replace(mistake.old, mistake.new, 1)
    return texts
