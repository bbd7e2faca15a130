"""The Images API v1: routes, controllers, and the mapping between headers and images."""
