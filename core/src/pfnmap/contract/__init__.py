"""The ground floor: the types that the core and plugins share. It imports nothing of what stands on it."""
