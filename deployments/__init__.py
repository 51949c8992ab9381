"""Whatever starts and runs: the command line, the embedded stack, the demo, containers."""
