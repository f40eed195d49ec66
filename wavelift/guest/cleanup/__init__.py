"""What the former platform left in a guest: agents, device lists, and labels of what is written anew."""
