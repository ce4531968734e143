"""Running trials: the plan, the supervisor that keeps the cores busy, its workers and their kernels."""
