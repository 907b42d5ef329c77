"""The model: its sizes, and its torch form for training and for GPUs."""
