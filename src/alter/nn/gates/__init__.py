"""Selectors and gates, one file per kind: presence registers."""
