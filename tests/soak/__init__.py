"""A seeded fault runner over real processes; `make soak` runs it, then counts what was lost."""
