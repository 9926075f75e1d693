"""The back-to-back user agent: two dialogs a call, one towards each side, and what passes between them."""
