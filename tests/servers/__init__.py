"""Real servers for the tests, each private to the run; install.sh installs what they need."""
