"""One module a stage: its options, what it measures, and for which launches kernels can be compiled ahead."""
