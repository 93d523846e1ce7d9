"""Flags into calls. launch.py at the top of the repository is a door to it."""
