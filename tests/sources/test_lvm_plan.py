"""The plans of snapshots, on what LVM 2.03.16 printed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavelift.blocks.errors import SourceError
from wavelift.sources.lvm_plan import Volume, create, leftovers, mapped, parse, remove, snapshot_size, state

MIB = 1 << 20
REPORT = """
  {
      "report": [
          {
              "lv": [
                  {"vg_uuid":"SsOPZo-T2qH-p3CA-m0Rj-Wpfy-KnNa-nA4ug5", "lv_uuid":"w3Dq2q-wYSE-doE8-2kU0-JnNX-TrSI-iVSN2c", "vg_name":"vg-0", "lv_name":"data", "lv_attr":"owi-a-s---", "lv_size":"33554432", "origin":"", "lv_tags":"", "vg_free":"54525952", "vg_extent_size":"4194304"},
                  {"vg_uuid":"SsOPZo-T2qH-p3CA-m0Rj-Wpfy-KnNa-nA4ug5", "lv_uuid":"qwC4tC-q9Pt-5Dn7-LRJj-QvXh-R3Fl-1Kpcf6", "vg_name":"vg-0", "lv_name":"other", "lv_attr":"-wi-a-----", "lv_size":"33554432", "origin":"", "lv_tags":"", "vg_free":"54525952", "vg_extent_size":"4194304"},
                  {"vg_uuid":"SsOPZo-T2qH-p3CA-m0Rj-Wpfy-KnNa-nA4ug5", "lv_uuid":"OpdS1N-ZQZ7-0XWT-vFuy-liU5-0e63-i1XFEp", "vg_name":"vg-0", "lv_name":"wavelift-4096344df04a", "lv_attr":"sri-aos---", "lv_size":"8388608", "origin":"data", "lv_tags":"wavelift", "vg_free":"54525952", "vg_extent_size":"4194304"}
              ]
          }
      ]
  }
"""  # noqa: E501


def volume(
    size: int = 320 * MIB, free: int = 1024 * MIB, attributes: str = "-wi-a-----", extent: int = 4 * MIB
) -> Volume:
    return Volume("LVM-x", "vg", "data", attributes, size, "", frozenset(), free, extent)


def test_what_lvs_printed() -> None:
    data, other, snapshot = parse(REPORT)
    assert data.uuid == "LVM-SsOPZoT2qHp3CAm0RjWpfyKnNanA4ug5w3Dq2qwYSEdoE82kU0JnNXTrSIiVSN2c"
    assert (data.full_name, data.size, data.free, data.extent) == ("vg-0/data", 32 * MIB, 52 * MIB, 4 * MIB)
    assert leftovers([data, other, snapshot], data) == [snapshot]
    assert leftovers([data, other, snapshot], other) == []
    assert snapshot_size(data) == 8 * MIB
    assert "no snapshots" in str(snapshot_size(snapshot))


def test_only_what_carries_our_tag_is_a_leftover() -> None:
    rows = json.loads(REPORT)
    rows["report"][0]["lv"][2]["lv_tags"] = "nightly,not-wavelift"
    data, *others = parse(json.dumps(rows))
    assert leftovers(others, data) == []


@pytest.mark.parametrize("text", ["", "{}", '{"report": 3}', '{"report": [{"lv": [{"vg_uuid": "x"}]}]}', "[]"])
def test_what_is_no_report_is_an_error(text: str) -> None:
    with pytest.raises(SourceError, match="lvs reports") as caught:
        parse(text)
    assert caught.value.code == "lvm_failed"


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["report", "lv", "vg_uuid", "lv_tags"]), inner),
    )
)
def test_any_report_is_read_or_refused(value: Any) -> None:
    try:
        parse(json.dumps(value))
    except SourceError as error:
        assert error.code == "lvm_failed"


@pytest.mark.parametrize(
    ("case", "size"),
    [
        (volume(), 64 * MIB),
        (volume(size=321 * MIB), 68 * MIB),
        (volume(free=40 * MIB), 40 * MIB),
        (volume(free=42 * MIB), 40 * MIB),
        (volume(free=8 * MIB), 8 * MIB),
        (volume(size=4 * MIB, free=4 * MIB), 4 * MIB),
        (volume(attributes="Vwi-aotz--"), 64 * MIB),
    ],
)
def test_a_snapshot_takes_a_fifth_of_the_volume_or_what_is_free(case: Volume, size: int) -> None:
    assert snapshot_size(case) == size


@pytest.mark.parametrize("case", [volume(free=4 * MIB), volume(free=0), volume(size=MIB, free=3 * MIB)])
def test_without_room_there_is_a_reason(case: Volume) -> None:
    assert f"{case.free} bytes free" in str(snapshot_size(case))


@given(st.integers(1, 1 << 30), st.integers(0, 1 << 30), st.integers(0, 12))
def test_a_snapshot_is_whole_extents_that_are_free(extents: int, free: int, power: int) -> None:
    extent = 512 * 1024 << power
    found = snapshot_size(volume(extents * extent, free * extent, extent=extent))
    if isinstance(found, int):
        assert 0 < found <= min(free, extents) * extent and found % extent == 0
    else:
        assert free == 0 or free * extent < extents * extent * 0.02 + extent


def test_the_commands() -> None:
    assert create(volume(), "wavelift-1", 64 * MIB) == (
        [
            "lvcreate",
            "--yes",
            "--snapshot",
            "--permission",
            "r",
            "--name",
            "wavelift-1",
            "--addtag",
            "wavelift",
            "--size",
            "67108864b",
            "vg/data",
        ]
    )
    assert remove("vg", "wavelift-1") == ["lvremove", "--yes", "vg/wavelift-1"]
    assert mapped("vg-0", "wavelift-1") == "vg--0-wavelift--1"


@pytest.mark.parametrize(
    ("status", "full", "untouched"),
    [
        ("0 65536 snapshot 16/16384 16\n", False, True),
        ("0 65536 snapshot 2072/16384 24\n", False, False),
        ("0 65536 snapshot Invalid\n", True, False),
        ("0 65536 snapshot Overflow\n", True, False),
    ],
)
def test_what_dmsetup_says_of_a_snapshot(status: str, full: bool, untouched: bool) -> None:
    found = state(status)
    assert (found.full, found.untouched) == (full, untouched)


@pytest.mark.parametrize("status", ["", "0 65536 linear 8:1", "0 65536 snapshot"])
def test_what_is_no_status_of_a_snapshot_is_an_error(status: str) -> None:
    with pytest.raises(SourceError, match="no snapshot"):
        state(status)
