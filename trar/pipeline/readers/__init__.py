"""One file a raw form: each turns files as people hold them into arrays or columns."""
