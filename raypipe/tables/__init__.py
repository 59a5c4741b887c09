"""What every room does with tables: ids looked up by row."""
