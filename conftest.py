"""Here so that the working tree is what the tests import, and so that TensorFlow starts quietly and behind Keras."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # whatever ~/.keras/keras.json says
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
