"""The programs of hotset: this package holds them, and `python -m hotset` runs the first."""
