"""Everything that reads what people bring, given thousands of good, odd and damaged inputs.

`python -m benchmarks.fuzz --count 100000` (`make fuzz`) tries every kind of input in turn and prints a table: how often
it was tried and what happened. Only two things may: a `GlotfuseError`, or exactly what was written. The same kinds run
as property tests in the default tier, a few inputs each.
"""
