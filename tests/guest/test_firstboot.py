"""First-boot scripts: planned into a tree, and run for real by the shells that guests have."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.guest.conftest import applied
from wavelift.guest import firstboot
from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed
from wavelift.guest.facts import Devices, FileSystem, Guest, Layout, System
from wavelift.guest.files import DirectoryFiles, FileEdit
from wavelift.manifest.wishes import Script, Wishes

ROOT = FileSystem("/dev/sda1", "ext4", "11111111-aaaa", (0, 1))
GUEST = Guest(System("debian", (), "12", "Debian"), (), Layout(ROOT, {"/": ROOT}, Devices({})))
TWO = Wishes(
    first_boot=[Script(name="second", script="#!/bin/sh\ntrue\n"), Script(name="another", script="#!/bin/sh\n")]
)
SHELLS = [["dash"], ["busybox", "sh"], ["bash", "--posix"]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "lib/systemd").mkdir(parents=True)
    (tmp_path / "lib/systemd/systemd").write_bytes(b"\x7fELF")
    return tmp_path


def sysv(tree: Path, folders: str) -> None:
    (tree / "lib/systemd/systemd").unlink()
    (tree / "etc/init.d").mkdir(parents=True)
    for level in range(7):
        folder = tree / folders.format(level)
        folder.mkdir(parents=True)
        (folder / "S10rsyslog").symlink_to("/etc/init.d/rsyslog")


def planned(tree: Path, wishes: Wishes) -> list[FileEdit]:
    draft = Draft(DirectoryFiles(tree))
    firstboot.plan(GUEST, wishes, draft)
    return draft.edits()


def settled(tree: Path, wishes: Wishes) -> str:
    """Planned and applied; a second time there is nothing to plan. The evidence."""
    applied(tree, planned(tree, wishes))
    assert planned(tree, wishes) == []
    (check,) = firstboot.check(GUEST, wishes, DirectoryFiles(tree))
    return check.evidence


def test_nothing_asked_for(tree: Path) -> None:
    assert planned(tree, Wishes()) == []
    assert firstboot.check(GUEST, Wishes(), DirectoryFiles(tree)) == []


def test_a_unit_that_runs_them(tree: Path) -> None:
    wishes = TWO.model_copy(update={"agents": ["cloud-assistant", "qemu-guest-agent"]})
    modes = {edit.path: edit.mode for edit in planned(tree, wishes)}
    assert list(modes)[:4] == [
        f"{firstboot.SCRIPTS}/01-agent-cloud-assistant",
        f"{firstboot.SCRIPTS}/02-agent-qemu-guest-agent",
        f"{firstboot.SCRIPTS}/03-second",
        f"{firstboot.SCRIPTS}/04-another",
    ]
    assert modes[f"{firstboot.SCRIPTS}/03-second"] == 0o700, "scripts may hold secrets"
    assert settled(tree, wishes).endswith("04-another, by wavelift-firstboot.service")
    assert (tree / firstboot.WANTED.lstrip("/")).readlink() == Path(firstboot.UNIT)


@pytest.mark.parametrize("folders", ["etc/rc{}.d", "etc/rc.d/rc{}.d", "etc/init.d/rc{}.d"])
def test_sysv_init(tree: Path, folders: str) -> None:
    sysv(tree, folders)
    assert settled(tree, TWO).endswith(firstboot.INIT)
    started = [n for n in range(7) if (tree / folders.format(n) / "S99wavelift-firstboot").is_symlink()]
    assert started == [2, 3, 4, 5]


def test_no_init_that_is_known(tree: Path) -> None:
    (tree / "lib/systemd/systemd").unlink()
    draft = Draft(DirectoryFiles(tree))
    firstboot.plan(GUEST, TWO, draft)
    assert draft.edits() == [] and "neither /lib/systemd" in draft.warnings[0]


def test_a_second_move_runs_them_again_and_drops_the_former_ones(tree: Path) -> None:
    settled(tree, TWO)
    marks = tree / firstboot.MARKS.lstrip("/")
    marks.mkdir(parents=True)
    (marks / "done").touch()
    with pytest.raises(PostconditionFailed, match="marks"):
        firstboot.check(GUEST, TWO, DirectoryFiles(tree))
    assert settled(tree, Wishes(agents=["qemu-guest-agent"])).startswith("01-agent-qemu-guest-agent, by")
    assert list(marks.iterdir()) == []
    applied(tree, planned(tree, Wishes()))
    assert DirectoryFiles(tree).names(firstboot.SCRIPTS) == []


def test_what_is_missing_fails_the_check(tree: Path) -> None:
    with pytest.raises(PostconditionFailed, match="01-second"):
        firstboot.check(GUEST, TWO, DirectoryFiles(tree))
    settled(tree, TWO)
    (tree / firstboot.WANTED.lstrip("/")).unlink()
    with pytest.raises(PostconditionFailed, match="not enabled"):
        firstboot.check(GUEST, TWO, DirectoryFiles(tree))


class Machine:
    """A folder in which the runner runs, with a shell of a guest."""

    def __init__(self, folder: Path, shell: list[str]) -> None:
        self.shell = shell
        self.scripts, self.marks, self.log = folder / "scripts", folder / "state/marks", folder / "log"
        self.runner = folder / "run"
        self.scripts.mkdir()
        self.runner.write_text(firstboot.runner(str(self.scripts), str(self.marks), str(self.log)))

    def add(self, name: str, text: str) -> None:
        (self.scripts / name).write_text(text)
        (self.scripts / name).chmod(0o700)

    def boot(self) -> str:
        command = [*self.shell, str(self.runner)]
        environment = {"PATH": os.environ["PATH"]}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30, check=True)
        assert done.stderr in ("", "Killed\n")
        return done.stdout.replace("wavelift-firstboot: ", "")


@pytest.fixture(params=SHELLS, ids=lambda shell: shell[0])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(tmp_path, request.param)


def test_in_order_once_and_past_failures(machine: Machine) -> None:
    machine.add("01-fails", "#!/bin/sh\necho out; echo err >&2; exit 7\n")
    machine.add("02-no-interpreter", "#!/nowhere\n")
    machine.add("03-plain", "pwd; echo $HOME; read line || echo no input\n")
    said = machine.boot()
    assert said.startswith("01-fails starts\nout\nerr\n01-fails ended with status 7\n02-no-interpreter starts\n")
    assert re.search(r"02-no-interpreter ended with status 12[67]\n", said)
    assert said.endswith("03-plain starts\n/\n/root\nno input\n03-plain ended with status 0\ndone\n")
    assert machine.log.read_text().replace("wavelift-firstboot: ", "") == said
    assert (machine.marks / "01-fails").read_text() == "7\n" and (machine.marks / "done").exists()
    assert machine.log.stat().st_mode & 0o077 == 0

    again = machine.boot()
    assert "starts" not in again and again.count("was started before") == 3


def test_a_machine_that_goes_down_meanwhile_goes_on_with_the_next(machine: Machine) -> None:
    """`kill -9` of the runner stands for the power that goes away."""
    machine.add("01-restarts", f"#!/bin/sh\nkill -9 $(cat {machine.runner.parent}/pid)\n")
    machine.add("02-after", "#!/bin/sh\necho ran after\n")
    runner = machine.runner.read_text()
    machine.runner.write_text(runner.replace("run_all() {", f"run_all() {{\n  sh -c 'echo $PPID' >{machine.log}.pid\n"))
    (machine.runner.parent / "pid").symlink_to(f"{machine.log}.pid")
    machine.boot()
    assert not (machine.marks / "done").exists()
    assert (machine.marks / "01-restarts").read_text() == "started\n"
    machine.runner.write_text(runner)
    assert machine.boot() == (
        "01-restarts was started before\n02-after starts\nran after\n02-after ended with status 0\ndone\n"
    )


def test_no_scripts_at_all(machine: Machine) -> None:
    assert machine.boot() == "done\n"


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_our_scripts_are_read_by_every_shell(tree: Path, shell: list[str]) -> None:
    sysv(tree, "etc/rc{}.d")
    applied(tree, planned(tree, Wishes(agents=["qemu-guest-agent", "cloud-assistant"])))
    made = [path for path in tree.rglob("*") if path.is_file() and path.read_bytes().startswith(b"#!")]
    assert len(made) == 4
    for path in made:
        subprocess.run([*shell, "-n", str(path)], check=True)


@pytest.mark.parametrize("shell", [SHELLS[0], SHELLS[2]], ids=["dash", "bash"])
def test_agents_by_the_package_manager(tmp_path: Path, shell: list[str]) -> None:
    """With programs of our own in place of the guest's; the network fails once. (Busybox prefers its own dpkg.)"""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "mktemp", "cat", "rm"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    stand_in(tools, "sleep", "")
    stand_in(tools, "systemctl", "")
    stand_in(tools, "zypper", '[ -e "$0.tried" ] || { : >"$0.tried"; exit 4; }')
    stand_in(tools, "rpm", "")
    stand_in(
        tools,
        "curl",
        'case $* in *internal*) exit 6;; *region-id*) echo eu-central-1 >"$5";; *) : >"$5";; esac',
    )
    for text in firstboot.scripts_of(Wishes(agents=["qemu-guest-agent", "cloud-assistant"])).values():
        command = [f"/usr/bin/{shell[0]}", *shell[1:], "-c", text]
        environment = {"PATH": str(tools), "TMPDIR": str(tmp_path)}
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=30)
    calls = (tools / "calls").read_text().splitlines()
    assert calls[:4] == [
        "zypper --non-interactive install qemu-guest-agent",
        "sleep 5",
        "zypper --non-interactive install qemu-guest-agent",
        "systemctl enable qemu-guest-agent",
    ]
    urls = [call.split()[-1] for call in calls if call.startswith("curl")]
    assert [url.rpartition("/")[0] for url in urls] == [
        "http://100.100.100.200/latest/meta-data",
        "https://aliyun-client-assist-eu-central-1.oss-eu-central-1-internal.aliyuncs.com/linux",
        "https://aliyun-client-assist.oss-accelerate.aliyuncs.com/linux",
    ]
    assert re.fullmatch(r"rpm -ivh --force \S+/aliyun_assist_latest\.rpm", calls[-1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin"], "temporary files are left"


def stand_in(tools: Path, name: str, does: str) -> None:
    path = tools / name
    path.write_text(f'#!/bin/sh\necho "{name} $*" >>{tools}/calls\n{does}\n')
    path.chmod(0o755)
