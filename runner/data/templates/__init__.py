"""Chat templates: where in a rendered conversation the answers stand."""
