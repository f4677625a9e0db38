"""What plugin authors test with: golden vectors of real kernels, and the conformance kit."""
