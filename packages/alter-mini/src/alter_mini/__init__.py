"""Carries a model and no code: `model_name_or_path: package:alter_mini` in a recipe of alter finds it in `model/`."""
