"""The parts of `make bench NAME=ledger`, each in a process of its own with its own Redis and database (`stand`)."""
