"""Checks a client of ``telex.v1`` against a scripted server: ``telex conformance -- COMMAND``."""
