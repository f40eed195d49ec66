"""What is run once when the instance has booted: agents that were asked for, then the user's scripts, in their order.

They run as root, without holding up the boot; output goes to the journal (or syslog), the console, and
/var/log/wavelift-firstboot.log, with the exit status of each. One that fails stops nothing. A script is started at
most once, also when it restarts the machine: then those after it run at the next boot. Marks of that lie in
/var/lib/wavelift/firstboot on the instance; a guest that is prepared anew (moved a second time) loses them, and the
scripts that it had.
"""

from __future__ import annotations

from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.facts import Guest
from wavelift.guest.files import GuestFiles
from wavelift.manifest.wishes import Wishes

FOLDER = "/usr/local/lib/wavelift"
RUNNER = f"{FOLDER}/firstboot"
SCRIPTS = f"{FOLDER}/firstboot.d"
MARKS = "/var/lib/wavelift/firstboot"
LOG = "/var/log/wavelift-firstboot.log"
UNIT = "/etc/systemd/system/wavelift-firstboot.service"
WANTED = "/etc/systemd/system/multi-user.target.wants/wavelift-firstboot.service"
INIT = "/etc/init.d/wavelift-firstboot"
_LEVELS = (2, 3, 4, 5)

_UNIT = f"""\
[Unit]
Description=Wavelift: scripts of the first boot after the move
Wants=network-online.target
After=network-online.target
ConditionPathExists=!{MARKS}/done

[Service]
Type=simple
ExecStart=/bin/sh {RUNNER}
KillMode=process
StandardOutput=journal+console
StandardError=inherit

[Install]
WantedBy=multi-user.target
"""

_INIT = f"""\
#!/bin/sh
### BEGIN INIT INFO
# Provides:          wavelift-firstboot
# Required-Start:    $remote_fs $network $syslog
# Required-Stop:
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: scripts of the first boot after the move
### END INIT INFO
# chkconfig: 2345 99 01
# description: scripts of the first boot after the move

[ "$1" = start ] || exit 0
[ ! -e {MARKS}/done ] || exit 0
if command -v logger >/dev/null; then
  sh {RUNNER} </dev/null 2>&1 | tee /dev/console | logger -t wavelift-firstboot &
else
  sh {RUNNER} </dev/null >/dev/console 2>&1 &
fi
"""

# Downloads may need more than one try: name servers and routes come up late.
_RETRY = """\
retry() {
  for pause in 5 15 30 60 0; do
    "$@" && return 0
    sleep "$pause"
  done
  return 1
}
"""

_AGENTS = {
    "qemu-guest-agent": f"""\
#!/bin/sh
{_RETRY}
if ! command -v qemu-ga >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  if command -v apt-get >/dev/null; then
    retry sh -c 'apt-get update && apt-get install -y qemu-guest-agent'
  elif command -v dnf >/dev/null; then
    retry dnf install -y qemu-guest-agent
  elif command -v yum >/dev/null; then
    retry yum install -y qemu-guest-agent
  elif command -v zypper >/dev/null; then
    retry zypper --non-interactive install qemu-guest-agent
  else
    echo 'no apt-get, dnf, yum or zypper to install qemu-guest-agent with'
    exit 1
  fi || exit 1
fi
command -v systemctl >/dev/null || exit 0
# Where its channel brings it up, it has no [Install] section and cannot be enabled.
systemctl enable qemu-guest-agent || echo 'started by its device alone'
# Without the channel it does not start, and is not needed.
[ ! -e /dev/virtio-ports/org.qemu.guest_agent.0 ] || systemctl start qemu-guest-agent
""",
    # As https://www.alibabacloud.com/help/en/ecs/user-guide/install-the-cloud-assistant-agent has it, for x86-64.
    "cloud-assistant": f"""\
#!/bin/sh
{_RETRY}
if [ -e /usr/local/share/aliyun-assist ] && command -v aliyun-service >/dev/null; then
  ! command -v systemctl >/dev/null || systemctl enable --now aliyun.service
  exit
fi
get() {{
  if command -v curl >/dev/null; then
    curl -fsS --connect-timeout 10 -o "$2" "$1"
  else
    wget -q -T 10 -O "$2" "$1"
  fi
}}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
if command -v dpkg >/dev/null; then kind=deb; else kind=rpm; fi
package=aliyun_assist_latest.$kind
fetch() {{
  if get http://100.100.100.200/latest/meta-data/region-id "$work/region"; then
    region=$(cat "$work/region")
    get "https://aliyun-client-assist-$region.oss-$region-internal.aliyuncs.com/linux/$package" "$work/$package" &&
      return 0
  fi
  get "https://aliyun-client-assist.oss-accelerate.aliyuncs.com/linux/$package" "$work/$package"
}}
retry fetch || exit 1
if [ $kind = deb ]; then dpkg -i "$work/$package"; else rpm -ivh --force "$work/$package"; fi
""",
}


def plan(guest: Guest, wishes: Wishes, draft: Draft) -> None:
    scripts = scripts_of(wishes)
    wanted = scripts and _started_by(draft) is not None
    for name in draft.names(SCRIPTS):
        if not wanted or name not in scripts:
            draft.remove(f"{SCRIPTS}/{name}", "a first-boot script of an earlier preparation")
    if not scripts:
        return
    if not wanted:
        draft.warn("first-boot scripts and agents were left out: neither /lib/systemd/systemd nor /etc/rc3.d is there")
        return
    for name in draft.names(MARKS):
        draft.remove(f"{MARKS}/{name}", "first-boot scripts run again after a new move")
    for name, text in scripts.items():
        draft.write(f"{SCRIPTS}/{name}", text, "run once at the first boot", 0o700)
    draft.write(RUNNER, runner(SCRIPTS, MARKS, LOG), "runs the first-boot scripts", 0o755)
    if _has_systemd(draft):
        draft.write(UNIT, _UNIT, "runs the first-boot scripts")
        if draft.link(WANTED) != UNIT:
            draft.make_link(WANTED, UNIT, "runs the first-boot scripts")
        return
    draft.write(INIT, _INIT, "runs the first-boot scripts", 0o755)
    for link in _levels(draft):
        if draft.link(link) != INIT:
            draft.make_link(link, INIT, "runs the first-boot scripts")


def check(guest: Guest, wishes: Wishes, files: GuestFiles) -> list[Check]:
    scripts = scripts_of(wishes)
    how = _started_by(files)
    if not scripts or how is None:
        return []
    links = [WANTED] if _has_systemd(files) else _levels(files)
    target = UNIT if _has_systemd(files) else INIT
    if files.names(SCRIPTS) != sorted(scripts) or files.read(RUNNER) is None:
        raise PostconditionFailed(f"{SCRIPTS} does not hold the first-boot scripts {', '.join(scripts)}", REMEDY)
    if files.read(target) is None or any(files.link(link) != target for link in links):
        raise PostconditionFailed(f"{target} is not enabled", REMEDY)
    if files.names(MARKS):
        raise PostconditionFailed(f"marks in {MARKS} keep first-boot scripts from running", REMEDY)
    return [Check("first-boot scripts", f"{', '.join(scripts)}, by {how}")]


def scripts_of(wishes: Wishes) -> dict[str, str]:
    """By name in the order in which they run."""
    asked = [(f"agent-{name}", _AGENTS[name]) for name in dict.fromkeys(wishes.agents)]
    asked += [(script.name, script.script) for script in wishes.first_boot]
    return {f"{number:02}-{name}": text for number, (name, text) in enumerate(asked, 1)}


def runner(scripts: str, marks: str, log: str) -> str:
    """The shell script that runs what is in a folder, one after the other."""
    return f"""\
#!/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
HOME=/root
export PATH HOME
umask 077
mkdir -p '{marks}' || exit 1

say() {{
  echo "wavelift-firstboot: $*"
}}

run_all() {{
  for script in '{scripts}'/*; do
    [ -f "$script" ] || continue
    name=${{script##*/}}
    mark='{marks}'/$name
    if [ -e "$mark" ]; then
      say "$name was started before"
      continue
    fi
    echo started >"$mark" || {{
      say "$name is left out: $mark cannot be written"
      continue
    }}
    sync
    say "$name starts"
    (
      cd / && umask 022 && exec "$script"
    ) </dev/null 2>&1
    status=$?
    echo "$status" >"$mark"
    say "$name ended with status $status"
  done
  : >'{marks}'/done
  say "done"
}}

run_all 2>&1 | tee -a '{log}'
"""


def _has_systemd(files: GuestFiles) -> bool:
    return any("systemd" in files.names(folder) for folder in ("/lib/systemd", "/usr/lib/systemd"))


def _levels(files: GuestFiles) -> list[str]:
    """Where SysV init looks: Debian's folders, Red Hat's, SUSE's."""
    for pattern in ("/etc/rc{}.d", "/etc/rc.d/rc{}.d", "/etc/init.d/rc{}.d"):
        if files.names(pattern.format(3)):
            return [f"{pattern.format(level)}/S99wavelift-firstboot" for level in _LEVELS]
    return []


def _started_by(files: GuestFiles) -> str | None:
    if _has_systemd(files):
        return "wavelift-firstboot.service"
    return INIT if _levels(files) else None
