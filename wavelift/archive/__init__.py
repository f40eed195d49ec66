"""Generations of disks at rest in a store: packs, block maps, and the record that makes a generation of them."""
