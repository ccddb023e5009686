"""`python -m alter` is the command `alter`; `accelerate launch -m alter train ...` trains on several processes."""

from alter.cli import main

main()
