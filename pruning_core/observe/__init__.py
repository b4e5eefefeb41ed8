"""What a model does on calibration data, call by call: inputs of layers, their second moments, gradients, feature maps."""
