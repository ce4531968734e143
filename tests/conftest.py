"""One thread, as in a trial: the same bits, and no fight over the cores."""

import torch

torch.set_num_threads(1)
