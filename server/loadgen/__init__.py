"""The load generator: asks any OpenAI-compatible API as many clients would, and measures what they see.

Knows nothing of Hearth's own server. `hearth bench` and the scripts in benchmarks/ are its users.
"""
