"""Plans timed on a runtime."""
