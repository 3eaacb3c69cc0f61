"""Keys: who may do what. Limits and usage of keys belong here too."""
