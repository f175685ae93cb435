"""Runs held against their records, and against the same runs trained again."""
