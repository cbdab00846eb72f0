"""From tables in MIMIC-IV's layout to cohorts, features and text."""
