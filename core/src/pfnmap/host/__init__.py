"""Readers of the real world, one a kind of input. Each bounds what it reads and executes nothing."""
