"""Paper tables and figures: each script reads results and prints ours beside published."""
