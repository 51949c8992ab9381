"""The HTTP API: `cancellations serve`."""
