"""What networks are made of: layers, the text encoder, what they answer with."""
