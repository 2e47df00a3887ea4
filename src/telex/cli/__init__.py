"""The command line: ``telex run``, ``telex routes``."""
