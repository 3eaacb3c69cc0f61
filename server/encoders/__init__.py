"""Embedding and rerank models: tokenising, dynamic batching, forward passes. Imported in encoder workers only."""
