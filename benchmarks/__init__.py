"""The harness: tasks, fitting, evaluation, running, tracking and reporting."""
