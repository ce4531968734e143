"""Running trials: the plan, the supervisor that keeps the cores busy, its workers and their kernels."""

import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, imported by papermill where there is no screen
