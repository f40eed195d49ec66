"""Writing a generation of an archive to a disk: in parallel, resumable, joined and proven by root."""
