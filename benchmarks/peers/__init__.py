"""The servers that Hearth is measured against, built with the same sources and compiler where that applies."""
