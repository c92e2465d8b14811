"""What a fold did: kept as plain values, and shown as text, JSON, a page and a picture."""
