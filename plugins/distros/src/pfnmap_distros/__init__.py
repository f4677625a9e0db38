"""What distributions' kernels have of the known upstream changes; all of it is data, in changes.toml."""
