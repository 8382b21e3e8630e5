"""Distributed training: Ray Train under the node's lifecycle."""
