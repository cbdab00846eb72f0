"""The composed configuration as validated, typed values."""
