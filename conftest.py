"""Here so that the working tree is what the tests import, and so that TensorFlow starts quietly and behind Keras."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras/keras.json says: masks and float64 differ elsewhere
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
