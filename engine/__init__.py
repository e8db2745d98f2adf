"""Run time: from scanner files to depth-registered tables. Never imports torch."""
