"""How λ is found: one file a strategy, all of them arrays in and a choice out."""
