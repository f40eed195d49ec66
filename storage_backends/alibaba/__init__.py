"""Alibaba Cloud by the ECS API: volumes on gateways, snapshots, images, instances."""
