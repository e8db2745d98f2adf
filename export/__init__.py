"""From a training checkpoint to a verified model bundle."""
