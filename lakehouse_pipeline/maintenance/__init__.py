"""Keeping tables in shape: what is done to them beside backfills."""
