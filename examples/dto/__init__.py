"""Data transfer objects, each shown in the documentation and run by tests/dto/test_examples.py."""
