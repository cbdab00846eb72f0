"""Records of any hospital: events by the user's codes, read by a file of concepts, as text and as features."""
