"""The HTTP edge of both daemons: framing, filters, faults, routing and the server process."""
