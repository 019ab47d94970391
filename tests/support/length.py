"""Says whether the long tests run too, as RETINANET_LONG_TESTS=1 requests."""

import os

IS_LONG = os.environ.get("RETINANET_LONG_TESTS") == "1"
