"""Labels as the guest's policy has them; what cannot be told is not guessed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.guest.cleanup.test_agents import put
from wavelift.guest.cleanup.selinux import new_labels, policy_type, selinux_label
from wavelift.guest.files import DirectoryFiles, FileEdit, Link

CONTEXTS = """\
# a policy as distributions write them
/.*	system_u:object_r:default_t:s0
/[^/]+	--	system_u:object_r:etc_runtime_t:s0
/etc/.*	system_u:object_r:etc_t:s0
/usr/.*	system_u:object_r:usr_t:s0
/var/lib/.*	system_u:object_r:var_lib_t:s0
/usr/(.*/)?bin(/.*)?	system_u:object_r:bin_t:s0
/lib64?/x	system_u:object_r:lib_t:s0
/usr/lib/systemd/system(/.*)?	system_u:object_r:systemd_unit_file_t:s0
/etc/systemd/system(/.*)?	-d	system_u:object_r:unit_folder_t:s0
/etc/systemd/system/.*	--	system_u:object_r:unit_file_t:s0
/etc/fstab	--	system_u:object_r:fstab_t:s0
/etc/fstab.*	--	system_u:object_r:never_t:s0
/etc/g\\+\\+	--	system_u:object_r:escaped_t:s0
/proc/.*	<<none>>
/opt/a|/opt/b	--	system_u:object_r:either_t:s0
/srv/(a+)+x	--	system_u:object_r:evil_t:s0
/mnt/([	--	system_u:object_r:broken_t:s0
not a rule of any kind
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    put(tmp_path, "/etc/selinux/config", "# comment\nSELINUX=enforcing\nSELINUXTYPE=targeted\n")
    put(tmp_path, "/etc/selinux/targeted/contexts/files/file_contexts", CONTEXTS)
    put(tmp_path, "/etc/selinux/targeted/contexts/files/file_contexts.local", "/etc/mine.*	u:r:local_t:s0\n")
    put(tmp_path, "/etc/selinux/targeted/contexts/files/file_contexts.subs_dist", "/run /var/run\n/usr/local /usr\n")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "kind", "wanted"),
    [
        ("/etc/hosts", "file", "etc_t"),
        ("/.autorelabel", "file", "etc_runtime_t"),
        ("/etc/fstab", "file", "fstab_t"),
        ("/etc/fstab", "link", "etc_t"),
        ("/etc/fstab.d", "file", "never_t"),
        ("/etc/g++", "file", "escaped_t"),
        ("/etc/systemd/system/a.service", "file", "unit_file_t"),
        ("/etc/systemd/system", "folder", "unit_folder_t"),
        ("/etc/systemd/system/a.service.d", "folder", "unit_folder_t"),
        ("/usr/local/bin/x", "file", "bin_t"),
        ("/usr/local/lib/x", "file", "usr_t"),
        ("/lib/x", "file", None),
        ("/lib6/x", "file", "lib_t"),
        ("/etc/mine.conf", "file", "local_t"),
        ("/opt/b", "file", "either_t"),
        ("/proc/x", "file", None),
        ("/srv/" + "a" * 60, "file", None),
        ("/mnt/x", "file", None),
    ],
)
def test_a_label(tree: Path, path: str, kind: str, wanted: str | None) -> None:
    label = selinux_label(DirectoryFiles(tree), path, kind)
    if path == "/lib/x":
        assert label == "system_u:object_r:default_t:s0"
        return
    assert (label.split(":")[2] if label else None) == wanted


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ("SELINUX=enforcing\n", "targeted"),
        ("SELINUX=permissive\nSELINUXTYPE=targeted\n", "targeted"),
        ("SELINUX=disabled\nSELINUXTYPE=targeted\n", None),
        ("SELINUX=enforcing\nSELINUXTYPE=none-such\n", None),
        ("SELINUX=enforcing\nSELINUXTYPE=../../x\n", None),
        ("", None),
    ],
)
def test_whether_there_is_a_policy(tree: Path, config: str, wanted: str | None) -> None:
    put(tree, "/etc/selinux/config", config)
    assert policy_type(DirectoryFiles(tree)) == wanted


def test_what_edits_make(tree: Path) -> None:
    edits = [
        FileEdit("/etc/selinux/config", b"old", b"new", "changed, and keeps its label"),
        FileEdit("/etc/hosts", b"old", None, "taken away"),
        FileEdit("/etc/systemd/system/b.service", None, b"new", "made"),
        FileEdit("/etc/systemd/system/c.service", None, Link("b.service"), "made"),
        FileEdit("/etc/dangling", Link("nowhere"), b"new", "a link replaced"),
        FileEdit("/srv/aaa", None, b"new", "cannot be told"),
    ]
    labels = new_labels(edits, DirectoryFiles(tree))
    assert labels is not None
    assert {path: label and label.split(":")[2] for path, label in labels.items()} == {
        "/etc/systemd": "etc_t",
        "/etc/systemd/system": "unit_folder_t",
        "/etc/systemd/system/b.service": "unit_file_t",
        "/etc/systemd/system/c.service": "etc_t",
        "/etc/dangling": "etc_t",
        "/srv": "default_t",
        "/srv/aaa": None,
    }
    put(tree, "/etc/selinux/config", "SELINUX=disabled\n")
    assert new_labels(edits, DirectoryFiles(tree)) is None


class Policy:
    """Files by path."""

    def __init__(self, contexts: str) -> None:
        self._files = {
            "/etc/selinux/config": b"SELINUX=enforcing\n",
            "/etc/selinux/targeted/contexts/files/file_contexts": contexts.encode("utf-8", "surrogateescape"),
        }

    def read(self, path: str) -> bytes | None:
        return self._files.get(path)

    def names(self, folder: str) -> list[str]:
        return []

    def link(self, path: str) -> str | None:
        return None


@given(st.text(alphabet="/abc.*+?()[]{}|\\^$-<> \t\n:\udcff", max_size=200), st.text(alphabet="/abc.", max_size=40))
def test_any_policy_gives_an_answer(contexts: str, path: str) -> None:
    label = selinux_label(Policy(contexts), f"/{path}")
    assert label is None or label in contexts
