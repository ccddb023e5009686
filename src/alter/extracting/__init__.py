"""Everything that happens during `alter extract`: one task of a model, with the adapters that it uses, as a model of its own."""
