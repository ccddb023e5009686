"""Training: one visible loop for both stages, checkpoints that resume bit for bit, a journal, and what ships in the end."""
