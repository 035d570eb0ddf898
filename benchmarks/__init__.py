"""Benchmarks. A regular package: a namespace package would lose to other distributions' packages of this name."""
