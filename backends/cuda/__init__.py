"""CUDA devices: GPUs through CuPy, and an emulator that runs the same CUDA C on the CPU."""
