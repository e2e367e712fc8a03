"""Pictures and texts to features, by pretrained models."""
