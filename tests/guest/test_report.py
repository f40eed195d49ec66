"""What a report says of a change: the lines that changed, and no others."""

from wavelift.guest.files import Link
from wavelift.guest.report import diff, digest


def test_only_what_changed_is_shown() -> None:
    before = b"[wifi]\npsk=secret\n[ethernet]\nmac-address=52:54:00:12:34:56\n"
    shown = diff(before, before.replace(b"mac-address=52:54:00:12:34:56", b"#"))
    assert "-mac-address=52:54:00:12:34:56" in shown and "+#" in shown and "secret" not in shown


def test_what_is_no_text_is_known_by_its_digest_alone() -> None:
    assert diff(b"\xff\x00", b"\xff\x01") == "" and diff(b"a\0", b"b\0") == "" and diff(None, Link("/dev/null")) == ""
    assert digest(Link("x")) == "link:x" and digest(None) is None and str(digest(b"")).startswith("sha256:e3b0")
    assert diff(b"", b"x\n" * 20000) == ""


def test_a_new_text_is_shown_whole() -> None:
    assert diff(None, b"one\ntwo\n").splitlines()[1:] == ["+one", "+two"]
