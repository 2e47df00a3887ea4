"""Telex's tests. Helpers that several of them share are in ``tests.support``."""
