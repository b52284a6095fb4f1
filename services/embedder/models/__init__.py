"""Networks, their weights, and the runtimes that compute them."""
