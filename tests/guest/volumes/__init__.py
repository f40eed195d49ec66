"""Partition tables made by other tools, and disks that grow."""
