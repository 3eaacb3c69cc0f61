"""Measurements of a running Hearth; each writes results/<name>.json. Not part of the installed package."""
