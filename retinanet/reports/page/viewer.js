// One image, with its objects and detections.
