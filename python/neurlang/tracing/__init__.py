"""Tracing: blocks and functions that are recorded, matched, compiled and replayed."""

from .recording import compiler as compiler
from .recording import reset_programs as reset_programs
from .trace import Counts as Counts
from .trace import trace as trace
