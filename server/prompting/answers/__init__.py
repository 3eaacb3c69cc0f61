"""What models write, read as it comes: content, reasoning and tool calls, in the format of each family of models."""
