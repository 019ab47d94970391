"""Says whether the long tests run too, which RETINANET_LONG_TESTS=1 asks for."""

import os

IS_LONG = os.environ.get("RETINANET_LONG_TESTS") == "1"
