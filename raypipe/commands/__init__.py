"""One module per command: what a user can ask raypipe to do."""
