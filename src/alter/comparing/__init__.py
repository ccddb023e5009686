"""`alter compare`: a recipe's method beside honest baselines, all through the same rows, trainer, budget and results file."""
