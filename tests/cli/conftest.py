from application import few_pixels_for_the_eye, scene_file, tiny  # noqa: F401  (fixtures)
