"""Datasets of image tiles joined to measured logs by depth."""
