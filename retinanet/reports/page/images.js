// The grid of images.
