"""Benchmarks beside the peers that are installed: `python -m benchmarks [names] [--json FILE]`; one file a workload."""
