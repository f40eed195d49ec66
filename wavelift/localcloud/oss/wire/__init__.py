"""The protocol of OSS, and of S3 as OSS speaks it. Knows no socket and no file."""
