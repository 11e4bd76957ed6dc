"""Job schedulers as operators see them."""
