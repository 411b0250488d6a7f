"""What `bench serve`, `bench materialize` and `bench faults` have in common: servers and load.

Everything that is started here is ended here, by its pid, whatever happens in between.
"""
