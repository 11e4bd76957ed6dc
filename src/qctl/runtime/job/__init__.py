"""A job in a worker's hands, and what its options say of its end."""
