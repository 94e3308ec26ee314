"""The representations between a tape and a program: graphs, kernels, schedules, their text, checker and meaning."""
