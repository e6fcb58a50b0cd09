"""What sessionledger costs beside the raw clients, measured in one run: ``python -m benchmarks``; see README.md."""
