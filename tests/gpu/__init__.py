"""Everything about GPUs that can be shown without one; see `emulator` and `device`."""
