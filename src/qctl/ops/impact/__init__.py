"""What a restart would do to the jobs."""
