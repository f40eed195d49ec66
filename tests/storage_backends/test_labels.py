"""Labels name things: different labels never share tags, and never a name where it has to be unique."""

from __future__ import annotations

from dataclasses import astuple

from hypothesis import assume, given
from hypothesis import strategies as st

from storage_backends.base import TAG_PREFIX, Labels, Role
from wavelift.manifest.schema import SLUG

slugs = st.from_regex(SLUG, fullmatch=True)
runs = st.text("0123456789abcdef", min_size=8, max_size=8)
disks = st.from_regex(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,20}$", fullmatch=True)
generations = st.integers(1, 2000)
labels = st.builds(
    Labels, slugs, slugs, runs, st.none() | st.sampled_from(Role), st.none() | disks, st.none() | generations
)


@given(labels, labels)
def test_different_labels_have_different_tags(one: Labels, other: Labels) -> None:
    assert (one == other) == (one.tags() == other.tags())


@given(slugs, slugs, runs)
def test_dashes_move_between_names_but_not_between_tags(wave: str, migration: str, run: str) -> None:
    """`a-b`, `c` and `a`, `b-c` have one name: nothing may be derived from the name alone."""
    one, other = Labels(f"{wave}-x", migration, run), Labels(wave, f"x-{migration}", run)
    assert one.name() == other.name()
    assert one.tags() != other.tags()


@given(labels)
def test_tags_hold_every_field_that_is_set_and_read_back(given_labels: Labels) -> None:
    tags = given_labels.tags()
    assert len(tags) == sum(value is not None for value in astuple(given_labels))
    assert all(key.startswith(TAG_PREFIX) and value for key, value in tags.items())
    # Limits of the cloud: 128 characters each.
    assert all(len(key) <= 128 and len(value) <= 128 for key, value in tags.items())


@given(slugs, slugs, runs, disks, disks, generations, generations)
def test_within_a_run_and_role_names_differ(
    wave: str, migration: str, run: str, disk: str, other: str, generation: int, later: int
) -> None:
    assume((disk, generation) != (other, later))

    def name(*place: object) -> str:
        return Labels(wave, migration, run, *place).name()  # type: ignore[arg-type]

    assert name(Role.CLONE, disk, generation) != name(Role.CLONE, other, later)
    assert name(Role.CLONE, disk, generation) != name(Role.PREPARED, disk, generation)
    assert (name(Role.REPLICA, disk) == name(Role.REPLICA, other)) == (disk == other)
    assert len(name(Role.PREPARED, None, generation)) <= 128
