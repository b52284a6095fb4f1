"""The libraries that run networks, each behind `model.Runtime`; one module imports one of them."""
