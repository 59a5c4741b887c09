"""A finished comparison as tables, plots, text and a page that needs nothing else."""
