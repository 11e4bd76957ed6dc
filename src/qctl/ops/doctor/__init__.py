"""What can go wrong with queues, workers, processes and Redis: what ``qctl doctor`` finds."""
