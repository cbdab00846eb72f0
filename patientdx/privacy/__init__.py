"""What a model reveals of the records it was trained on: arrays and texts in, numbers and texts out."""
