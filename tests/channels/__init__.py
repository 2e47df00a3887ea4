"""Channels, over real brokers."""
