"""Read a run directory, without models: tables, statistics, plots and pictures."""
