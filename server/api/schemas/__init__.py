"""Request bodies as pydantic models: types, ranges, defaults, and what is refused by name."""
