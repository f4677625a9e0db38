"""What commands show: tables, JSON, lines of text."""
