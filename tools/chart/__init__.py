"""Writes what of the chart and of k8s/ is made of something else; `make manifests` runs it."""
