"""Everything that is drawn: one look, and a module for what each reader sees."""
