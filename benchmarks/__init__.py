"""Measurements: every figure that the README states is made here."""
