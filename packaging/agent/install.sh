#!/bin/sh
# Installs the Wavelift agent on a source host. The program follows this text in the same file: nothing is fetched.
set -eu

VERSION=@VERSION@
SHA256=@SHA256@
PAYLOAD_LINE=@PAYLOAD_LINE@
PREFIX=/opt/wavelift-agent
CONFIG=/etc/wavelift-agent
STATE=/var/lib/wavelift-agent
UNIT=/etc/systemd/system/wavelift-agent.service
LISTEN=0.0.0.0:8442

usage() {
  cat <<END
Wavelift agent $VERSION for Linux on x86-64

  sh $0 [--listen HOST:PORT] [--disk ID=SOURCE]... [--no-start]
  sh $0 --uninstall

The first installation writes $CONFIG/arguments: by default it listens at
$LISTEN and offers every disk of this machine. A later one replaces the program and
keeps that file, the token and the state: --listen replaces the address there, --disk
all disks there, and the rest stays as it is. --uninstall removes all of it.

Needed: root; a kernel of 3.10 or newer; sh, tar, gzip, tail, sha256sum, od; 200 MB in /opt.
Not needed: Python, a compiler, the internet. Without systemd it says how to start the agent.
Snapshots of logical volumes need lvm2; qcow2 images need qemu-nbd.
END
}

fail() {
  echo "$0: $1" >&2
  exit 1
}

running_systemd() {
  [ -d /run/systemd/system ] && command -v systemctl >/dev/null
}

uninstall() {
  if running_systemd && [ -e "$UNIT" ]; then
    systemctl disable --now wavelift-agent.service
  fi
  rm -rf "$UNIT" "$PREFIX" "$PREFIX.new" "$CONFIG" "$STATE"
  if running_systemd; then systemctl daemon-reload; fi
  echo "The agent is removed, with its token and its state."
}

# The name that stays with a disk when the kernel numbers them anew.
lasting_name() {
  for link in /dev/disk/by-id/* /dev/disk/by-path/*; do
    if [ "$(readlink -f "$link" 2>/dev/null)" = "/dev/$1" ]; then
      echo "$link"
      return
    fi
  done
  echo "/dev/$1"
}

every_disk() {
  for block in /sys/block/*; do
    name=${block##*/}
    case $name in loop* | ram* | zram* | sr* | fd* | dm-* | md* | nbd* | drbd*) continue ;; esac
    [ "$(cat "$block/size")" -gt 0 ] && [ -b "/dev/$name" ] || continue
    printf -- '--disk\n%s=%s\n' "$name" "$(lasting_name "$name")"
  done
}

# Arguments, one a line, without an option and its value.
without() {
  value=
  while IFS= read -r line; do
    if [ -n "$value" ]; then value= && continue; fi
    case $line in "$1") value=next ;; "$1="*) ;; *) printf '%s\n' "$line" ;; esac
  done
}

write_arguments() {
  if [ -e "$CONFIG/arguments" ]; then
    kept=$(cat "$CONFIG/arguments")
    if [ -n "$listen" ]; then kept=$(printf '%s\n' "$kept" | without --listen); fi
    if [ -n "$disks" ]; then kept=$(printf '%s\n' "$kept" | without --disk); fi
  else
    kept=$(printf -- '--state\n%s\n--token-file\n%s' "$STATE" "$CONFIG/token")
    listen=${listen:-$LISTEN}
    disks=${disks:-$(every_disk)}
  fi
  {
    printf '%s\n' "$kept"
    if [ -n "$listen" ]; then printf -- '--listen\n%s\n' "$listen"; fi
    if [ -n "$disks" ]; then printf '%s\n' "$disks"; fi
  } >"$CONFIG/arguments.new"
  mv "$CONFIG/arguments.new" "$CONFIG/arguments"
}

host_and_port() {
  case $1 in *[!][0-9A-Za-z.:_-]*) return 1 ;; ?*:?*) ;; *) return 1 ;; esac
  case ${1##*:} in *[!0-9]* | ??????*) return 1 ;; esac
  [ "${1##*:}" -le 65535 ]
}

unpack() {
  rm -rf "$PREFIX.new"
  trap 'rm -rf "$PREFIX.new"' EXIT
  mkdir -p "$PREFIX.new"
  tail -n "+$PAYLOAD_LINE" "$0" | tar -xzf - -C "$PREFIX.new" || fail "unpacking to $PREFIX.new failed; is /opt full?"
  "$PREFIX.new/bin/wavelift-agent" --help >/dev/null || fail "the program does not run here (kernel $(uname -r))"
}

start() {
  sed -e "s|@PREFIX@|$PREFIX|g; s|@CONFIG@|$CONFIG|g; s|@STATE@|$STATE|g" "$PREFIX/wavelift-agent.service" >"$UNIT"
  systemctl daemon-reload
  systemctl enable -q wavelift-agent.service
  systemctl restart wavelift-agent.service
  tries=0
  while [ "$tries" -lt 60 ]; do
    tries=$((tries + 1))
    sleep 1
    pid=$(systemctl show -p MainPID wavelift-agent.service)
    line=$(journalctl -q -o cat "_PID=${pid#MainPID=}" 2>/dev/null | grep '"service": *"agent"' | tail -n 1) || line=
    if [ -n "$line" ]; then
      echo "It runs: $line"
      return
    fi
  done
  fail "it did not start; see: journalctl -u wavelift-agent"
}

listen= disks= start=yes
while [ $# -gt 0 ]; do
  case $1 in
    --listen)
      host_and_port "${2:-}" || fail "--listen needs HOST:PORT, for example --listen $LISTEN; this is '${2:-}'"
      listen=$2
      shift ;;
    --disk)
      case ${2:-} in ?*=?*) ;; *) fail "--disk needs ID=SOURCE, for example --disk sda=/dev/sda" ;; esac
      disks="$disks${disks:+
}--disk
$2"
      shift ;;
    --no-start) start=no ;;
    --uninstall) action=uninstall ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; fail "unknown option: $1" ;;
  esac
  shift
done

[ "$(id -u)" -eq 0 ] || fail "run it as root: the disks of this machine are readable by root only"
if [ "${action:-}" = uninstall ]; then
  uninstall
  exit 0
fi
[ "$(uname -m)" = x86_64 ] || fail "this file is for x86-64; this machine is $(uname -m)"
for tool in tar gzip tail sha256sum od tr sed mv; do
  command -v "$tool" >/dev/null || fail "the program $tool is missing"
done
found=$(tail -n "+$PAYLOAD_LINE" "$0" | sha256sum)
[ "${found%% *}" = "$SHA256" ] || fail "this file is damaged: copy it again"

umask 077
unpack
chmod 755 "$PREFIX.new"
mkdir -p "$CONFIG" "$STATE"
if [ ! -s "$CONFIG/token" ]; then
  od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$CONFIG/token.new"
  mv "$CONFIG/token.new" "$CONFIG/token"
fi
if [ ! -e "$CONFIG/arguments" ] || [ -n "$listen$disks" ]; then
  write_arguments
fi
rm -rf "$PREFIX"
mv "$PREFIX.new" "$PREFIX"
if command -v restorecon >/dev/null; then restorecon -R "$PREFIX" || echo "SELinux labels of $PREFIX could not be set" >&2; fi

echo "The agent $VERSION is in $PREFIX."
echo "Token:     $CONFIG/token (give it to the orchestrator's connection)"
echo "Arguments: $CONFIG/arguments (one a line)"
if [ "$start" = yes ] && running_systemd; then
  start
else
  [ "$start" = no ] || echo "This machine does not run systemd."
  echo "Start it by hand: $PREFIX/bin/wavelift-agent @$CONFIG/arguments"
fi
exit 0
