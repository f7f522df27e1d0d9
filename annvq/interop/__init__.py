"""Other libraries' indexes and quantizers, and annvq's for them."""
