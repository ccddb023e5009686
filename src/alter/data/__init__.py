"""From examples to tensors: encoding, batches."""
