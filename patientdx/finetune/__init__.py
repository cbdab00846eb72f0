"""The only code that computes a gradient: today, how the shipped numeric pivot was trained, on generated numbers."""
