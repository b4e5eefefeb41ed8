"""Plain functions, one per step: they know torch and files, no platform. Flows put them together."""
