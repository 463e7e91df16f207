"""Where images come from (``sources``): both CIFARs, folders of images (``image_folder``, what
lies in them by ``layout`` and ``listing``, read by ``decoding``, kept by ``packing``), digits, or
a seed (``synthetic``); all become uint8 arrays, which ``split`` and ``batches`` hand to training.
"""
