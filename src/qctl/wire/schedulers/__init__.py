"""Job schedulers: when they are due and how their jobs are made (wire format 6)."""
