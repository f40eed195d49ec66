"""A guest's network: its cards keep their names and addresses on the target, or get those that are wished for."""
