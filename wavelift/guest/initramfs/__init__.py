"""The initramfs of each kernel: taken apart as the kernel does, and given what it lacks for virtio."""
