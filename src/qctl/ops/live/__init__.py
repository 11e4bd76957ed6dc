"""What ``qctl top`` shows."""
