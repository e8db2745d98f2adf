"""PyTorch training. Never imported by the engine."""
