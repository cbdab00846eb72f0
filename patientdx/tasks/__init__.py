"""Tasks: what is asked about whom, with which right answer. A task knows no model."""
