"""Builds the files of labelling tools."""

import json


def labelme(image_path: str) -> str:
    """Returns labelme's JSON for an image with a cat at BOX."""
    shape = {"label": "cat", "points": [[32.0, 32.0], [12.0, 8.0]], "group_id": None, "shape_type": "rectangle"}
    content = {"version": "5.4.1", "flags": {}, "shapes": [shape], "imagePath": image_path, "imageData": None}
    return json.dumps(content | {"imageHeight": 48, "imageWidth": 64})


def cvats_xml(image: str, shapes: str = "", labels: str = "") -> str:
    """Returns CVAT's own XML for an image with a cat at BOX; `shapes` and `labels` are added to its own."""
    return f"""<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><labels>
    <label><name>cat</name><attributes/></label><label><name>dog</name><attributes/></label>{labels}
  </labels></task></meta>
  <image id="0" name="{image}" width="64" height="48">
    <box label="cat" source="manual" occluded="0" xtl="12.00" ytl="8.00" xbr="32.00" ybr="32.00" z_order="0"></box>
    {shapes}
  </image>
</annotations>
"""
