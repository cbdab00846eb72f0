"""What a model gives away of the records it was made with: arrays and texts in, numbers and texts out."""
