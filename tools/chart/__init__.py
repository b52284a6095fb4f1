"""Generates files of the chart and of k8s/; `make manifests` runs it."""
