"""Pretraining on plain text: from scratch or from a base, ending in a model folder that everything else can start from."""
