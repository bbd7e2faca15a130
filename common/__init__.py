"""What both daemons share; imports neither of them, nor the stores."""
