"""The OS matrix: machines built from Debian's packages, moved to virtio, and booted there."""
