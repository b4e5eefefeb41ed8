"""After the cut: keep what the model knew, without labels and without gradients."""
