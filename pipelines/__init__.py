"""The service: pull a model from an MLflow registry, compress it, register what passes beside it."""
