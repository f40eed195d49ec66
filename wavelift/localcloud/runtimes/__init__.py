"""What runs an instance: QEMU machines, and scripts on this host."""
