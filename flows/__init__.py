"""Thin Prefect flows: parameters in, one use case a task, an artifact out."""
