"""Detects objects in images and videos."""

from retinanet.runtime.console import run_command
from retinanet.settings.predict import predict_settings

if __name__ == "__main__":
    run_command(predict_settings, "predict")
