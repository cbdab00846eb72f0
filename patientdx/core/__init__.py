"""Errors, atomic files, checksums, locks, process groups, threads and dotted functions: what every layer may use."""
