"""One small file per program."""
