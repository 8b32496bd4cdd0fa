"""Samples of one's own images: read, fit to a method, draw, keep, and an index page to look at."""
