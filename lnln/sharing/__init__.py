"""What is given to others: a model with its card, a report, an ONNX file."""
