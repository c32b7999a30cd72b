"""Reference networks, one file per family: plain PyTorch modules of convolution, linear, norm, ReLU and pooling.

Every builder takes (classes, image_shape) with image_shape = (C, H, W) and returns a module from images [B, C, H, W]
to logits [B, classes]. Widths, kernels and child names are those of the network named as the source, so that its
published weights load.
"""
