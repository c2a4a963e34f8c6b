"""`rankguard.launch`, with real processes."""
