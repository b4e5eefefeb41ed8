"""What the engine's tests share."""

import torch
from hypothesis import settings

settings.register_profile("engine", deadline=None, max_examples=25)
settings.load_profile("engine")
torch.set_num_threads(1)
