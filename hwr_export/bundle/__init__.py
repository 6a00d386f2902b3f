"""Release -> signed archive -> verified directory on a device. Torch-free; what an archive says is never trusted."""
