"""The vault: the one place where keyed digits become a card, and the only one that talks to the gateway."""
