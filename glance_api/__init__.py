"""glance-api: /v1/images over HTTP, in layers around a registry and stores."""
