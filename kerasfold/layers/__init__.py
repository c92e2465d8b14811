"""What stock Keras layers can say, and how they are made."""
