"""A generated hospital in MIMIC-IV's layout. No patient is in it."""
