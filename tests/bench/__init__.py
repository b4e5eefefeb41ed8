"""Coverage and speed benchmarks. They need the peers and the model zoos of requirements.txt, never `make test`."""
