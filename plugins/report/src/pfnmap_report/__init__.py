"""One self-contained HTML page of what a command of pfnmap answered."""
