"""What only Windows itself can do: install the drivers' packages, set addresses, run the user's scripts; once.

A service starts cmd.exe, which starts the script beside it and ends. Windows notes that the service did not answer,
and goes on: should anything be wrong here, the machine boots all the same. Of the other ways, SYSTEM\\Setup's CmdLine
holds up the logon until it ends, RunOnce waits for somebody to log on, and tasks are accepted only with hashes that
are not documented. The script takes the service away.
"""

from __future__ import annotations

from wavelift.guest.draft import Draft
from wavelift.guest.errors import PostconditionFailed, UnsupportedGuest
from wavelift.guest.evidence import REMEDY, Check
from wavelift.guest.files import GuestFiles
from wavelift.guest.windows.files import CONFIG, open_hive, real
from wavelift.guest.windows.hive import Hive, Value, dword, expand_sz, sz
from wavelift.guest.windows.inspection import WindowsGuest
from wavelift.guest.windows.network import script as network_script
from wavelift.manifest.wishes import Script, Wishes

SERVICE = "WaveliftFirstBoot"
FOLDER = "/ProgramData/Wavelift"
_CURRENT = "Microsoft\\Windows\\CurrentVersion"
_DRIVERS = "%SystemDrive%\\ProgramData\\Wavelift\\drivers"
_CMD = "%SystemRoot%\\System32\\cmd.exe"
_COMMAND = f'{_CMD} /d /c start "" /b {_CMD} /d /c %SystemDrive%\\ProgramData\\Wavelift\\firstboot.cmd'
_POWERSHELL = "powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -File"
_MARKS = {"[bat]": ".cmd", "[powershell]": ".ps1"}
_MAIN = """\
@echo off
rem Written by Wavelift, for the first boot after the move. Runs once.
setlocal EnableExtensions DisableDelayedExpansion
set "HERE=%SystemDrive%\\ProgramData\\Wavelift"
set "PATH=%SystemRoot%\\System32;%SystemRoot%\\System32\\WindowsPowerShell\\v1.0;%SystemRoot%"
call :main >>"%HERE%\\firstboot.log" 2>&1
exit /b

:main
echo %DATE% %TIME% first boot
icacls "%HERE%" /inheritance:r /grant:r *S-1-5-18:(OI)(CI)F *S-1-5-32-544:(OI)(CI)F
icacls "%HERE%\\*" /reset /t /c /q
for %%i in ("%HERE%\\drivers\\*.inf") do call :driver "%%~i"
"""
_END = """\
sc.exe delete {service}
echo %DATE% %TIME% done
exit /b

:driver
echo %DATE% %TIME% driver %~nx1
pnputil.exe -i -a %1
echo ended with %ERRORLEVEL%
exit /b

:once
if not exist "%HERE%\\scripts\\%~1" exit /b
if not exist "%HERE%\\done" mkdir "%HERE%\\done"
move /y "%HERE%\\scripts\\%~1" "%HERE%\\done\\%~1"
echo %DATE% %TIME% script %~1
if /i "%~x1"==".ps1" ({powershell} "%HERE%\\done\\%~1") else (cmd.exe /d /c "%HERE%\\done\\%~1")
echo ended with %ERRORLEVEL%
exit /b
"""


def plan(guest: WindowsGuest, wishes: Wishes, draft: Draft) -> None:
    for sentence in _not_done(wishes):
        draft.warn(sentence)
    for path, content in _contents(guest, wishes).items():
        draft.write(real(draft, path), content, "what Windows does at its first boot")
    path, hive = open_hive(draft, f"{CONFIG}/SYSTEM")
    for name, value in _service().items():
        hive.set(_key(guest), name, value)
    fixed = _fixed_addresses(guest, hive)
    if fixed and all(each.method != "static" for each in wishes.network.interfaces):
        draft.warn(f"{path}: fixed addresses ({', '.join(fixed)}) stay with the old cards; the new ones use DHCP")
    draft.write(path, hive.content(), "a service for the first boot")
    path, hive = open_hive(draft, f"{CONFIG}/SOFTWARE")
    searched = hive.text(_CURRENT, "DevicePath") or "%SystemRoot%\\inf"
    if _DRIVERS.lower() not in searched.lower().split(";"):
        hive.set(_CURRENT, "DevicePath", expand_sz(f"{searched};{_DRIVERS}"))
    draft.write(path, hive.content(), "drivers are looked for in their folder")


def check(guest: WindowsGuest, wishes: Wishes, files: GuestFiles) -> list[Check]:
    for path, content in _contents(guest, wishes).items():
        if files.read(real(files, path)) != content:
            raise PostconditionFailed(f"{path} is not what it has to be", REMEDY)
    _, hive = open_hive(files, f"{CONFIG}/SYSTEM")
    if any(hive.get(_key(guest), name) != value for name, value in _service().items()):
        raise PostconditionFailed(f"SYSTEM: the service {SERVICE} is not what it has to be", REMEDY)
    packages = ", ".join(guest.drivers.packages)
    return [Check("first boot", f"service {SERVICE}; packages {packages}; {len(wishes.first_boot)} scripts")]


def _key(guest: WindowsGuest) -> str:
    return f"{guest.system.control_set}\\Services\\{SERVICE}"


def _fixed_addresses(guest: WindowsGuest, hive: Hive) -> list[str]:
    cards = f"{guest.system.control_set}\\Services\\Tcpip\\Parameters\\Interfaces"
    fixed = [each for each in hive.keys(cards) if hive.number(f"{cards}\\{each}", "EnableDHCP") == 0]
    values = [hive.get(f"{cards}\\{each}", "IPAddress") for each in fixed]
    return [address for value in values if value is not None for address in value.texts]


def _service() -> dict[str, Value]:
    return {
        "Type": dword(0x10),
        "Start": dword(2),
        "ErrorControl": dword(0),
        "ImagePath": expand_sz(_COMMAND),
        "DisplayName": sz("Wavelift first boot"),
        "ObjectName": sz("LocalSystem"),
    }


def _contents(guest: WindowsGuest, wishes: Wishes) -> dict[str, bytes]:
    found = {
        f"{FOLDER}/drivers/{name}": content
        for package in guest.drivers.packages.values()
        for name, content in package.items()
    }
    scripts = [_script(number, script) for number, script in enumerate(wishes.first_boot, 1)]
    network = network_script(wishes.network)
    if network:
        scripts.insert(0, ("00-network.ps1", network))
    for name, text in scripts:
        found[f"{FOLDER}/scripts/{name}"] = _encoded(name, text)
    calls = "".join(f"call :once {name}\n" for name, _ in scripts)
    main = _MAIN + calls + _END.format(service=SERVICE, powershell=_POWERSHELL)
    found[f"{FOLDER}/firstboot.cmd"] = _encoded("firstboot.cmd", main)
    return found


def _script(number: int, script: Script) -> tuple[str, str]:
    mark, _, text = script.script.partition("\n")
    suffix = _MARKS.get(mark.strip().lower())
    if suffix is None:
        raise UnsupportedGuest(
            f"first_boot script {script.name} does not say what it is for: its first line is {mark.strip()!r}",
            "begin it with a line [bat] or [powershell], as Alibaba Cloud's user data for Windows does",
        )
    return f"{number:02}-{script.name}{suffix}", text


def _encoded(name: str, text: str) -> bytes:
    lines = text.replace("\r\n", "\n").replace("\n", "\r\n")
    # PowerShell takes a script without this mark for one in the machine's code page.
    return lines.encode("utf-8-sig" if name.endswith(".ps1") else "utf-8")


def _not_done(wishes: Wishes) -> list[str]:
    asked = {"hostname": wishes.hostname is not None, "grow": wishes.grow, "agents": bool(wishes.agents)}
    return [f"`{name}` is not done on Windows: give a script in first_boot" for name, given in asked.items() if given]
