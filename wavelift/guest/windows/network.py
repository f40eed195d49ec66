"""Addresses of Windows' new network cards, as a PowerShell script that the first boot runs (PowerShell 2 and later)."""

from __future__ import annotations

from wavelift.manifest.wishes import Interface, Network

# The cards in the order of the bus; what they are on Windows is known only once their driver is installed.
_CARDS = """\
$wanted = {count}
$place = {{
    $key = 'HKLM:\\SYSTEM\\CurrentControlSet\\Enum\\' + $_.PNPDeviceID
    $location = (Get-ItemProperty -Path $key).LocationInformation
    if ($location -match '\\((\\d+),(\\d+),(\\d+)\\)') {{
        '{{0:D5}}{{1:D5}}{{2:D5}}' -f [int]$matches[1], [int]$matches[2], [int]$matches[3]
    }} else {{ 'unknown' }}
}}
$cards = @()
for ($try = 0; $try -lt 60; $try++) {{
    $cards = @(Get-WmiObject Win32_NetworkAdapter | Where-Object {{
        $_.PNPDeviceID -like 'PCI\\VEN_1AF4&*' -and $_.InterfaceIndex -and $_.NetConnectionID
    }} | Sort-Object $place)
    if ($cards.Count -ge $wanted) {{ break }}
    Start-Sleep -Seconds 5
}}
Write-Output "$($cards.Count) of $wanted cards"
"""


def script(network: Network) -> str:
    """Empty where every card is left as Windows sets new ones up: by DHCP."""
    parts = [(number, _commands(each)) for number, each in enumerate(network.interfaces)]
    chosen = [(number, commands) for number, commands in parts if commands]
    if not chosen:
        return ""
    lines = _CARDS.format(count=len(network.interfaces))
    for number, commands in chosen:
        body = "".join(f"    {command}\n" for command in commands)
        lines += f"if ($cards.Count -gt {number}) {{\n    $card = $cards[{number}].InterfaceIndex\n{body}}}\n"
    return lines


def _commands(interface: Interface) -> list[str]:
    commands = []
    first = True
    for address in interface.addresses:
        if address.version == 4:
            verb = "set address name=$card source=static" if first else "add address name=$card"
            commands.append(f"netsh interface ipv4 {verb} address={address.ip} mask={address.netmask}")
            first = False
        else:
            commands.append(f"netsh interface ipv6 add address interface=$card address={address}")
    if interface.gateway is not None:
        version, everything = interface.gateway.version, "0.0.0.0/0" if interface.gateway.version == 4 else "::/0"
        commands.append(
            f"netsh interface ipv{version} add route {everything} interface=$card nexthop={interface.gateway}"
        )
    for version in (4, 6):
        servers = [server for server in interface.dns if server.version == version]
        for number, server in enumerate(servers):
            verb = f"add dnsservers name=$card address={server} index={number + 1} validate=no"
            if number == 0:
                verb = f"set dnsservers name=$card source=static address={server} validate=no"
            commands.append(f"netsh interface ipv{version} {verb}")
    if interface.search:
        key = "HKLM:\\SYSTEM\\CurrentControlSet\\Services\\Tcpip\\Parameters"
        commands.append(f"Set-ItemProperty -Path '{key}' -Name SearchList -Value '{','.join(interface.search)}'")
    return commands
