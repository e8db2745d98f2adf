"""Train a small Segment Anything on generated scenes of cores."""
