"""Adapters: their folders, heads, training and evaluation."""
