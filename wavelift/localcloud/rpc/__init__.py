"""The RPC style of Alibaba Cloud APIs: signed requests in, JSON or XML out. Knows no resource."""
