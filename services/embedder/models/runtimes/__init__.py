"""Runs networks in several libraries behind `model.Runtime`; each module imports one library."""
