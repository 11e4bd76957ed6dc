"""The bundled worker runtime: fetches jobs, runs them and settles them. Also adds jobs."""
