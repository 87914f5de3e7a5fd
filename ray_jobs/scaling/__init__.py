"""Scaling laws: from runs of several sizes to the size that a compute budget wants."""
