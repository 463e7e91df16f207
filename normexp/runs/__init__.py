"""Runs as they are planned and kept: the plan of a sweep, and its jobs composed together."""
