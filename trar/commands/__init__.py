"""What the command line does, a file for each of its two programs; see ``trar.cli``."""
