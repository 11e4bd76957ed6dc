"""Single jobs and lists of jobs."""
