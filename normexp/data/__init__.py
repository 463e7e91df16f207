"""Where images come from: CIFAR-10, folders of images, or a seed; all become uint8 arrays."""
