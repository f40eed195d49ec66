"""What a user wants of a guest: as the manifest has it."""

from wavelift.manifest.wishes import Address, Host, Interface, Network, Script, Wishes

__all__ = ["Address", "Host", "Interface", "Network", "Script", "Wishes"]
