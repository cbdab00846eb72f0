"""Analyses of an evaluation, one file each, and the tables of their results."""
