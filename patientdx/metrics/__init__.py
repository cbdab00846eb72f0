"""Numbers from arrays: ranking quality and its uncertainty by patient."""
