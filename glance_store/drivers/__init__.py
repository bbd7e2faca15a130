"""The drivers that come with the service, one file each, loaded by entry point when enabled."""
