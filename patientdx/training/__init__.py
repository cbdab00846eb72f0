"""The only code that computes a gradient: of fine-tuned comparators, and how the shipped numeric pivot was trained."""
