"""Measures whether the primitives restore better than the host, and than a wider host with as many parameters.

``python -m benchmarks.quality run --form cpu --train CROPS --test PHOTOGRAPHS --minutes 30`` trains what is missing
until the time is up; the same command resumes.
"""
