"""The ground floor: what the parts of the model and its plugins say to each other. It imports nothing above it."""
