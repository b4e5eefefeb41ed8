"""Prefect flows: wiring only. Tasks hand each other references and frozen reports, never tensors."""
