"""From an architecture to a trained, scored candidate: builder, data, training, search."""
