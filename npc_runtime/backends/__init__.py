"""Where States live and tokens are computed; one module per kind of device."""
