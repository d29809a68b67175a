"""CUDA devices: GPUs through CuPy, and an emulator that runs the same CUDA C on the CPU.

``pip install omniop[cuda]`` runs on NVIDIA's GPUs; ``cuda:emu`` is there wherever g++ is.
"""

from omniop.backends.cuda.backend import CudaBackend

BACKEND = CudaBackend()
