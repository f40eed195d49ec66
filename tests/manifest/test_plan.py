"""Volume sizes follow the cloud's rules whatever the disk's size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wavelift.manifest.plan import GIB, SMALLEST_SYSTEM_GIB, smallest_gib, volume_gib
from wavelift.manifest.schema import SourceDisk, Target

TARGETS = st.sampled_from(
    [
        *(("cloud_essd", level) for level in ("PL0", "PL1", "PL2", "PL3", None)),
        ("cloud_efficiency", None),
        ("cloud_ssd", None),
        ("cloud_auto", None),
        ("cloud_essd_entry", None),
    ]
)


@given(TARGETS, st.booleans(), st.integers(512, 64 << 40).map(lambda n: n // 512 * 512))
def test_a_volume_holds_its_disk_and_is_no_larger_than_it_must_be(
    kind: tuple[str, str | None], boot: bool, size: int
) -> None:
    target = Target.model_validate(
        {
            "instance_type": "ecs.g7.large",
            "vswitch": "vsw-1",
            "security_group": "sg-1",
            "disk_category": kind[0],
            "performance_level": kind[1],
        }
    )
    smallest = smallest_gib(target, boot=boot)
    gib = volume_gib(target, SourceDisk(id="d", boot=boot), size)
    assert gib * GIB >= size
    assert gib >= smallest
    assert gib == smallest or (gib - 1) * GIB < size
    assert not boot or gib >= SMALLEST_SYSTEM_GIB


def test_what_the_manifest_says_wins() -> None:
    target = Target(instance_type="t", vswitch="v", security_group="s")
    assert volume_gib(target, SourceDisk(id="d", volume_gib=77), 1) == 77
