"""What is remembered: the ports, their backends, the wire format and the record formats."""
