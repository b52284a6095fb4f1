"""Search methods: a module for each, listed in `registry`."""
