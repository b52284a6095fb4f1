"""Shows what was measured: tables, plots, an HTML report."""
