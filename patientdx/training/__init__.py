"""The only code of the package that computes a gradient, and the tabular models."""
