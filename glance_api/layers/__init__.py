"""The layers around the registry, one concern each; `glance_api.app` composes them."""
