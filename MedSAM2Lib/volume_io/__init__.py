"""Reading images, writing segmentations: `read.read_volume`, `read.read_labels`, `write.write_segmentation`."""
