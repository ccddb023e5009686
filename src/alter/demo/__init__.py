"""The embedded example: help-desk tickets, written for this project, and the recipe that learns six tasks over them."""
