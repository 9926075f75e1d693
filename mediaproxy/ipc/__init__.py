"""How the processes talk: typed messages, key records, and the sockets that carry them."""
