"""Backends that keep archives: OSS and S3 buckets, offline disks, memory."""
