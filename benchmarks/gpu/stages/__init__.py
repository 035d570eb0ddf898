"""One module per stage: its options, its measurements, and the blocks whose kernels can be compiled ahead."""
