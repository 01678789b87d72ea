"""The processes of a cluster, and the command line."""
