"""The hub and what is resident on it."""
