"""Workers in the background: start, list, restart and stop their masters, and read their logs."""
