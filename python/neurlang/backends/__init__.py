"""Backends: each turns a schedule into something that runs. They know no pass."""
