"""Helpers that tests share: a raw client, leak checks, memory limits, the browser."""
