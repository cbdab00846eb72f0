"""Commands: what a user runs beside run.py."""
