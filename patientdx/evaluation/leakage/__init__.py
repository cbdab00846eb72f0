"""What the models of a run give away of its records: losses measured, attacked, and put into words."""
