"""The runner: sections in, committed result folders out."""
