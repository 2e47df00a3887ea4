"""Telex's tests. Helpers that several of them share live in ``tests.support``."""
