"""The bundled runtime: take jobs, run them, settle them; and make new ones."""
