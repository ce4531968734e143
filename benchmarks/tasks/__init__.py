"""The shared tasks: one file per family, one contract (`task`), one table (`registry`)."""
