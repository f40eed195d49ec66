"""A twin of the part of Alibaba Cloud OSS that a migration needs, on files and SQLite.

Three layers: `service` speaks HTTP; `wire` tells operations apart, checks signatures, reads and writes XML and headers;
`model` holds buckets, objects and uploads and knows no HTTP.
"""
