"""Buckets, objects and uploads: rows in SQLite, bytes in files. Knows no HTTP."""
