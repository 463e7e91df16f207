"""Where images come from (``sources``): CIFAR-10, folders of images, or a seed; all become uint8
arrays, which ``split`` and ``batches`` hand to training."""
