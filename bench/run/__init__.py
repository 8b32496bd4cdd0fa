"""Measure: draw samples, compute metrics and times, keep them; resume after a kill."""
