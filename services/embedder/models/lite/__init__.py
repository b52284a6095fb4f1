"""Makes the graph of EfficientNet-Lite from its published weights, without torch."""
