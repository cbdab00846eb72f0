"""Merge methods as curves in weight space: pure tensor mathematics, one file per method."""
