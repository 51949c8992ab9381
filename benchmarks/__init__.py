"""Figures that this project quotes, each measured side by side with something in one run.

python -m benchmarks.NAME [--quick] [--json] [--check] [--data PATH] [--seed N]
"""
