"""Tensors: the MTA module at one site, its adapters and its gates."""
