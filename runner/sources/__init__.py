"""Where files come from: a Hub repository, a local path, a URL, a wheel."""
