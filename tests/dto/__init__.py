"""Tests of data transfer objects."""
