"""Boot loaders, kernel arguments and tables of file systems: what names disks."""
