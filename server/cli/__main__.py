"""`python -m server.cli` is `hearth`."""

from server.cli.main import main

main()
