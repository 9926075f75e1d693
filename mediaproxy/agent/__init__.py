"""The agent process: HTTP API, event streams, page and metrics. It never holds a digit."""
