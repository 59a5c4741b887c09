"""The report of a comparison: its facts, tables, plots and page."""
