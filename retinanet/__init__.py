"""RetinaNet: train on a COCO-format data set, evaluate, look at the results, check a submission."""
