"""The parts of `make bench NAME=gateway`, each in a process of its own with its own Redis and database (`suite`)."""
