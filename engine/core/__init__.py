"""The core job: sections, grids, stages and interval tables."""
