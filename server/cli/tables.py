"""Tables as wide as the terminal, and not squeezed where there is none: what is piped has no edge."""

from __future__ import annotations

import os

from rich.console import Console
from rich.table import Table

_PIPED_WIDTH = 200


def print_table(table: Table) -> None:
    """Print to standard output; what is in square brackets is no markup."""
    console = Console(markup=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPED_WIDTH
    console.print(table)
