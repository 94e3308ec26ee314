"""The kernels of 64-bit ARM processors, compiled by a cross-compiler and run under emulation."""
