"""What several stages share: random streams, augmentation, ranks, progress, optimisation."""
