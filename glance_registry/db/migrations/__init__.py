"""Schema migrations. A revision is frozen once released: it never imports the current models."""
