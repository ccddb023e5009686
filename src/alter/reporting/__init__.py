"""Everything that happens during `alter report`: results files are read, and nothing else. No torch, no model."""
