"""The entrance: whoever has proved an address or a key comes through here, whatever the way: one policy, one
door."""
