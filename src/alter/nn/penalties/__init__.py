"""Penalties on gate weights, one file each: presence registers."""
