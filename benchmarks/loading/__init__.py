"""What ``benchmarks/loader.py`` compares, and how: a file a subject."""
