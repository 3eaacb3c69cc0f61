"""From a file to text with structure, one module per family of formats. For the parser's child process only."""
