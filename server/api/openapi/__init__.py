"""The OpenAPI document: one table of operations, the shapes of answers, and how both become a document and a page."""
