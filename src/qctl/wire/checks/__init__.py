"""Readings that only ``doctor`` needs."""
