"""Records from a MEDS folder."""
