from method_scene import config, site  # noqa: F401  (fixtures)
