"""A worker's loop: fetch, run, settle."""
