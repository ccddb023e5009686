"""Several models become one: what `alter merge` does. The formulas are in `alter.merging`, here are the folders."""
