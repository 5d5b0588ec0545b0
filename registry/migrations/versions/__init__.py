"""The changes themselves, one a file."""
