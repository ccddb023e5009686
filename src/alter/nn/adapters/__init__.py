"""Adapter kinds, one file each: presence registers."""
