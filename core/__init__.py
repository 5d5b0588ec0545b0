"""The resident base: locales, errors, packing, slots and the engine."""
