"""`sweep.mode: search`: draws by Optuna, pruning by ASHA, a journal that survives, one test run."""
