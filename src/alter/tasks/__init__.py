"""Tasks as plain data: what a task is, where its rows are, and how tasks are mixed. No torch here."""
